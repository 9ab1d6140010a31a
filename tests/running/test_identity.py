"""The identity moves with everything that changes the numbers, and with nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import python
from helpers.given import make_folder
from helpers.pipelines import save_pipeline
from helpers.sketch import NAMES
from safetensors.torch import load_file, save_file

from bench.discovery.loading import load_plugins
from bench.running.parts.settings import SETTINGS, make_config
from bench.running.prepare import prepare
from bench.running.risk import with_chosen_params
from bench.store.calibrations import CalibratedSetting, Calibration, write_calibration
from bench.store.folder import MANIFEST
from bench.store.formats import identity as ids
from bench.store.formats.fields import to_json
from bench.store.formats.identity import digest

# What these name counts, not how it is called: each is in a test below, or in those of candidates
# (`candidates_from`, `top`) and of a risk that no setting keeps (`risk_else`).
BY_CONTENT = {
    *("dataset", "data_dir", "labels", "id_column", "image_column", "label_column", "class_names"),
    *("backbone", "weights", "lora", "revision", "fit_split", "candidates_from", "top", "risk"),
    *("risk_else", "prompts", "hierarchy", "noise"),
}


@pytest.fixture(scope="module")
def base(pipelines: dict[str, Path]) -> dict[str, Any]:
    settings = {"dataset": "digits", "strategy": "full", "params": {"draws": 3}}
    return {**settings, "backbone": str(pipelines["sd15"])}


@pytest.fixture(scope="module")
def usual(base: dict[str, Any]) -> str:
    return identity(base)


def identity(base: dict[str, Any], **settings: Any) -> str:
    return digest(with_chosen_params(prepare(make_config({**base, **settings}))).manifest.identity)


def test_every_setting_that_counts_by_its_content_has_a_test() -> None:
    """`test_declarations` has one for all settings, with two values each."""
    assert {n for n in SETTINGS if SETTINGS[n].identity == "content"} == BY_CONTENT


def test_a_guided_run_says_that_draws_share_a_null(base: dict[str, Any]) -> None:
    """In runs of earlier versions, whose identity says nothing of it, each cell had its own."""
    scoring = prepare(make_config({**base, "guidance": 2.0})).manifest.identity.scoring
    assert scoring.plain()["guidance_null"] == "draw"
    unguided = prepare(make_config(base)).manifest.identity.scoring
    assert "guidance_null" not in unguided.plain()


def test_a_tree_counts_by_its_content_where_a_strategy_uses_it(
    base: dict[str, Any], usual: str, tmp_path: Path
) -> None:
    for file, rest in (("a", "round"), ("b", "round"), ("c", "open")):
        rows = [f"{name},{'straight' if name in ('one', 'seven') else rest}," for name in NAMES]
        tree = "\n".join(["node,parent,words", "straight,,lines", f"{rest},,{rest} forms", *rows])
        (tmp_path / f"{file}.csv").write_text(tree)
    one, same, other = (
        identity(base, strategy="full-hierarchy", hierarchy=str(tmp_path / f"{file}.csv"))
        for file in "abc"
    )
    assert one == same != other != usual


def test_saying_the_default_changes_nothing(base: dict[str, Any]) -> None:
    said = {
        **{"split": "test", "template": "a handwritten digit {class}", "normalize": "half"},
        **{"loss": "l2", "seed": 0, "dtype": "float32", "params": {"draws": "3"}},
    }
    assert identity(base, **said) == identity(base)


@pytest.mark.parametrize(
    ("kind", "name"), [("datasets", "digits"), ("backbones", "folder"), ("strategies", "full")]
)
def test_a_spec_s_version_moves_it(
    kind: str, name: str, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, registry = identity(base), getattr(load_plugins(), kind)
    spec = registry.get(name)
    monkeypatch.setitem(registry._specs, name, replace(spec, version=spec.version + 1))
    assert identity(base) != before


def test_the_version_of_the_identity_moves_it(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity(base)
    monkeypatch.setattr(ids, "IDENTITY_VERSION", ids.IDENTITY_VERSION + 1)
    assert identity(base) != before


def test_a_run_id_holds_it_and_no_time(base: dict[str, Any]) -> None:
    one, other = (prepare(make_config(base)).manifest for _ in range(2))
    assert one.run_id == other.run_id == f"digits-sd15-full-{digest(one.identity)[:8]}"


def test_data_counts_by_its_content(
    base: dict[str, Any], image_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / image_folder.name
    shutil.copytree(image_folder, copy)
    before = identity(base, dataset=str(image_folder))
    assert before != identity(base)
    assert identity(base, dataset=str(copy)) == before
    assert identity(base, dataset="folder", data_dir=str(copy)) == before
    (copy / "cat" / "1.png").write_bytes((copy / "cat" / "5.png").read_bytes())
    assert identity(base, dataset=str(copy)) != before


def test_labels_and_class_names_count_by_their_content(
    base: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "flat", "1.png", "2.png")
    own = {**base, "dataset": str(folder)}
    tables = {"a.csv": "file,label\n1.png,x\n2.png,y\n", "b.csv": "at,is\n1.png,x\n2.png,y\n"}
    tables["c.csv"] = "file,label\n1.png,y\n2.png,x\n"
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
    names = {"image_column": "at", "label_column": "is"}
    first = identity(own, labels=str(tmp_path / "a.csv"))
    assert identity(own, labels=str(tmp_path / "b.csv"), **names) == first
    assert identity(own, labels=str(tmp_path / "b.csv"), id_column="at", **names) == first
    assert identity(own, labels=str(tmp_path / "b.csv"), id_column="is", **names) != first
    assert identity(own, labels=str(tmp_path / "c.csv")) != first
    (tmp_path / "same.json").write_text('["x", "y"]')
    (tmp_path / "words.json").write_text('["ox", "yak"]')
    for file, moves in (("same.json", False), ("words.json", True)):
        settings = {"labels": str(tmp_path / "a.csv"), "class_names": str(tmp_path / file)}
        assert (identity(own, **settings) != first) == moves


def test_weights_count_by_their_content(
    base: dict[str, Any], pipelines: dict[str, Path], tmp_path: Path
) -> None:
    before = identity(base)
    assert identity(base, backbone=str(pipelines["sd21"])) != before
    copy = tmp_path / "elsewhere" / pipelines["sd15"].name
    shutil.copytree(pipelines["sd15"], copy)
    assert identity(base, backbone=str(copy)) == before
    assert identity(base, backbone="folder", weights=str(copy)) == before
    file = next((copy / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1e-6
    save_file(tensors, file, metadata={"format": "pt"})
    assert identity(base, backbone=str(copy)) != before


def test_a_lora_counts_by_its_content_and_scale(base: dict[str, Any], tmp_path: Path) -> None:
    first, copied, other = (tmp_path / f"{name}.safetensors" for name in ("a", "b", "c"))
    for value, file in enumerate((first, other)):
        save_file({"unet.to_q.lora_A.weight": torch.full((2, 2), float(value))}, file)
    shutil.copy(first, copied)
    base = {**base, "backbone": str(save_pipeline(tmp_path / "whole"))}
    with_one = identity(base, lora=str(first))
    assert with_one != identity(base)
    assert identity(base, lora=str(copied)) == identity(base, lora=f"{first}:1") == with_one
    settings = (str(other), f"{first}:0.5", [str(first), str(other)])
    assert len({with_one, *(identity(base, lora=lora) for lora in settings)}) == 4


def test_a_hub_revision_counts_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real cache of the Hub, as its client lays it out, with no network."""
    repository = tmp_path / "models--someone--model"
    for name, commit in (("main", "a" * 40), ("v1", "a" * 40), ("v2", "b" * 40)):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / name).write_text(commit)
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / "model_index.json").write_text("{}")
    code = (
        "from bench.inputs.weights import resolve; import json\n"
        "print(json.dumps([resolve('someone/model', r).fingerprint for r in (None, 'v1', 'v2')]))"
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    default, same, other = python(code).json
    assert default == same == f"someone/model@{'a' * 40}" and other != same


def test_prompts_count_by_their_text(base: dict[str, Any], tmp_path: Path) -> None:
    rows = [f"a handwritten digit {name},{name},{i}" for i, name in enumerate(NAMES)]
    file = tmp_path / "prompts.csv"
    file.write_text("\n".join(["prompt,classname,classidx", *rows]) + "\n")
    assert identity(base, prompts=str(file)) == identity(base)
    file.write_text(file.read_text().replace("digit zero", "digit nought"))
    assert identity(base, prompts=str(file)) != identity(base)


def test_a_noise_file_counts_by_its_content(base: dict[str, Any], tmp_path: Path) -> None:
    files = [
        tmp_path / name for name in ("one.safetensors", "same.safetensors", "same.pt", "other.pt")
    ]
    noise = torch.arange(3 * 4 * 8 * 8, dtype=torch.float32).reshape(3, 4, 8, 8)
    for file in files[:2]:
        save_file({"noise": noise}, file)
    torch.save(noise, files[2])
    torch.save(noise + 1, files[3])
    one, *same, other = (identity(base, noise=str(file)) for file in files)
    assert same == [one, one] and len({one, other, identity(base)}) == 3


def test_what_is_learned_from_counts_by_its_content(tmp_path: Path) -> None:
    names = [f"{s}/{c}/{n}.png" for s in ("test", "train", "same") for c in "ab" for n in "12"]
    data = make_folder(tmp_path / "data", *names)
    for path in (data / "same").rglob("*.png"):
        shutil.copy(data / "train" / path.relative_to(data / "same"), path)
    learner = {"dataset": str(data), "backbone": "nearest-mean"}
    first = prepare(make_config(learner)).manifest.identity
    same = prepare(make_config({**learner, "fit_split": "same"})).manifest.identity
    assert first.learned_from is not None and same.learned_from is not None
    assert first.learned_from.fingerprint == same.learned_from.fingerprint
    assert first.learned_from.split != same.learned_from.split
    before = digest(first)
    shutil.copy(data / "same" / "a" / "1.png", data / "train" / "b" / "2.png")
    assert digest(prepare(make_config(learner)).manifest.identity) != before


def test_a_stated_risk_counts_by_its_calibration(base: dict[str, Any], tmp_path: Path) -> None:
    settings = {**base, "strategy": "race", "results": str(tmp_path)}
    made = [prepare(make_config({**settings, "split": split})) for split in ("test", "train")]
    race, other = (run.manifest for run in made)
    path = tmp_path / other.run_id
    path.mkdir()
    (path / MANIFEST).write_text(to_json(other.plain()))

    def calibrated(images: int) -> str:
        tried = CalibratedSetting(strategy=race.strategy, cost=1.0, right=1, disagreements=0)
        of_run = {"format": 1, "run_id": other.run_id, "identity": digest(other.identity)}
        counted = {"split": "train", "images": images, "level": 0.95, "settings": [tried]}
        content = {**of_run, **counted, "chosen": ["delta", "first"]}
        write_calibration(path, Calibration.model_validate(content))
        return identity(settings, risk=0.05)

    assert calibrated(80) == calibrated(80)
    assert len({calibrated(80), calibrated(81), identity(settings)}) == 3
