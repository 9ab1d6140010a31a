"""The weekly look at what is declared, against a Hub of our own."""

import json
from pathlib import Path

import pytest
from helpers.given import picture, write_parquet
from helpers.hub import Fault, Hub

from bench.discovery.loading import load_plugins
from benchmarks.published import save_published
from tools import declared


def serve_images(hub: Hub, name: str, folder: Path, labels: list[object], **names: str) -> None:
    """Serve five images under the source of a declared dataset."""
    spec = load_plugins().datasets.get(name)
    columns = {names["image"]: [picture(n) for n in range(5)], names["label"]: labels}
    write_parquet(folder / name / "data" / "test-00000-of-00001.parquet", columns)
    hub.add(f"datasets/{str(spec.source).removeprefix('hf:')}", folder / name)


@pytest.mark.long
def test_the_table_says_what_the_hub_has(hub: Hub, tmp_path: Path) -> None:
    classes = load_plugins().datasets.get("cifar10").classes or ()
    serve_images(hub, "cifar10", tmp_path, [*classes[:5]], image="img", label="label")
    serve_images(hub, "mnist", tmp_path, ["zebra"] * 5, image="image", label="label")
    hub.add("models/facebook/DiT-XL-2-256", save_published("dit-256", tmp_path / "a", False))
    hub.add("models/facebook/DiT-XL-2-512", tmp_path / "a")  # the other network's configs
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text(json.dumps({"model_type": "clip"}))
    hub.add("models/openai/clip-vit-base-patch32", tmp_path / "clip")
    hub.add("models/stabilityai/stable-diffusion-3-medium-diffusers", tmp_path / "clip")
    hub.faults.append(Fault("stable-diffusion-3-medium", status=403, code="GatedRepo"))

    names = ("cifar10", "mnist", "cifar100", "dit-256", "dit-512", "clip-b32", "sd3")
    found = {line.split(" | ")[1]: (good, line) for good, line in declared.table(names)}
    assert {*found} == {*names}
    good = {name for name in names if found[name][0]}
    assert good == {"cifar10", "dit-256", "clip-b32", "sd3"}, found
    assert "3 images, 10 classes" in found["cifar10"][1] and "256 px" in found["dit-256"][1]
    assert declared.GATED in found["sd3"][1] and "zebra" in found["mnist"][1]
    assert "declared: 512 px" in found["dit-512"][1] and "clip" in found["clip-b32"][1]
    assert not [path for path in hub.asked if path.endswith(".safetensors")]


def test_every_declared_dataset_and_model_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(declared, "first_rows", lambda spec: spec.name)
    monkeypatch.setattr(declared, "configs", lambda spec: spec.name)
    assert declared.main() == 0
    lines = capsys.readouterr().out
    assert lines.count("| dataset |") > 25 and lines.count("| model |") > 30
    assert "| satellite-sd2 | rgres/satellite_diffusion |" in lines and "| ucmerced" not in lines
