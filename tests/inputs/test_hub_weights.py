"""A file that the Hub has is used, or the run ends with its name: no other file takes its place."""

import os
import shutil
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import diffusers
import huggingface_hub
import pytest
import torch
from helpers.damage import TEXT, TINY, UNET, VAE, copy_pipeline
from helpers.hub import Fault, Hub
from helpers.matrix import matrix
from helpers.pipelines import save_pipeline
from helpers.refusals import refused
from helpers.released import made
from helpers.single_file import save_single_file
from huggingface_hub import constants

from bench.errors import AbsentError
from bench.inputs.weights import Weights, add_files, resolve
from bench.machine.offline import offline
from bench_plugins.backbones._pipelines.files import load_pipeline
from bench_plugins.backbones.families import StableDiffusion
from bench_plugins.backbones.pipeline_folder import FolderPipeline

TOKENIZER, MERGES = "tokenizer/tokenizer.json", "tokenizer/merges.txt"
# Each with the words that the error has.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "busy": ({"status": 503}, "answered 503"),
    "too many requests": ({"status": 429}, "answered 429"),
    "listed but not there": ({"status": 404, "code": "EntryNotFound"}, "answered 404"),
    "a cut connection": ({"after": 10}, "did not provide it"),
}
Loads = Callable[[Weights], object]


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A name of its own for each test: what was loaded of a repository stays in memory."""
    return f"some/{tmp_path.name}"


def stable_diffusion(weights: Weights) -> None:
    """Load every part, after the check that comes before a run."""
    StableDiffusion.check_weights(weights)
    backbone = StableDiffusion(weights)
    _ = backbone.network, backbone.autoencoder()
    backbone.encode_prompts(["a"])


def with_decoys(folder: Path) -> Path:
    """Copy tiny-digits, with other files that a loader might take for its own."""
    copy_pipeline(TINY, folder)
    for file in (UNET, VAE, TEXT):
        path = folder / file
        shutil.copy(path, path.with_suffix(".fp16.safetensors"))
        torch.save({}, path.with_suffix(".bin"))
    return folder


def files_of(hub: Hub) -> list[str]:
    """Return the files that were asked for, in order."""
    paths = [request.path for request in hub.log if "/resolve/" in request.path]
    return list(dict.fromkeys(unquote(path.split("/", 5)[5]) for path in paths))


def each_fault_is_an_error(hub: Hub, loads: Loads, faults: Iterable[str]) -> list[str]:
    """Fail unless each fault of each file ends the loading with the file's name."""
    (repository,) = hub.files
    name = repository.removeprefix("models/")
    loads(resolve(name))
    files = files_of(hub)
    for number, (fault, file) in enumerate(product(faults, files)):
        options, words = FAULTS[fault]
        copy = f"{name}-{number}"  # nothing of it is cached
        hub.files[f"models/{copy}"] = hub.files[repository]
        hub.faults[:] = [Fault(f"/{file}", **options)]
        with refused(file, words) as caught:
            loads(resolve(copy))
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
        hub.faults.clear()
    loads(resolve(copy))  # nothing is remembered of the fault
    return files


@pytest.mark.parametrize(
    ("file", "fault"),
    matrix(
        product([UNET, TOKENIZER], FAULTS),
        [(UNET, "busy"), (TOKENIZER, "listed but not there")],
    ),
)
def test_every_fault(fault: str, file: str, hub: Hub, name: str, tmp_path: Path) -> None:
    hub.add(f"models/{name}", with_decoys(tmp_path / "tiny"))
    options, words = FAULTS[fault]
    hub.faults.append(Fault(f"/{file}", **options))
    with refused(file, words):
        stable_diffusion(resolve(name))


def aura(folder: Path) -> Path:
    """Save a text encoder and a tokenizer that transformers loads, from what was fetched before."""
    made("AuraFlowPipeline").save_pretrained(folder)
    return folder


def by_its_code(weights: Weights) -> None:
    backbone = FolderPipeline(weights, resolution=16)
    _ = backbone.network
    backbone.encode_prompts(["a"])


def as_a_whole(weights: Weights) -> None:
    load_pipeline(FolderPipeline.empty(weights, "float32"))


# How a repository is made and loaded, and some of the files that are asked for.
WAYS: dict[str, tuple[Callable[[Path], Path], Loads, set[str]]] = {
    "in parts": (with_decoys, stable_diffusion, {UNET, VAE, TEXT, TOKENIZER, "model_index.json"}),
    "by its code": (aura, by_its_code, {TEXT, TOKENIZER}),
    "whole": (save_pipeline, as_a_whole, {UNET, MERGES}),
    "a single file": (save_pipeline, as_a_whole, {MERGES}),
}


@pytest.mark.parametrize(
    ("way", "faults"),
    [
        *(pytest.param(way, ["busy"], marks=pytest.mark.long) for way in WAYS),
        pytest.param("in parts", [*FAULTS], marks=pytest.mark.slow),
    ],
)
def test_a_busy_hub_gives_no_other_file(
    way: str, faults: list[str], hub: Hub, name: str, tmp_path: Path
) -> None:
    make, loads, some = WAYS[way]
    whole = make(tmp_path / "whole")
    hub.add(f"models/{name}", whole)
    if way == "a single file":
        pipe = diffusers.DiffusionPipeline.from_pretrained(whole)
        file = str(save_single_file(pipe, tmp_path / "one.safetensors"))

        def loads(weights: Weights) -> None:
            as_a_whole(add_files(weights, [], file))

    files = {*each_fault_is_an_error(hub, loads, faults)}
    assert some <= files <= hub.files[f"models/{name}"].keys(), "it asks for what is not listed"
    assert not any("fp16" in file or file.endswith(".bin") for file in files)
    assert way != "a single file" or UNET not in files


def test_half_precision_takes_the_files_made_for_it(hub: Hub, name: str, tmp_path: Path) -> None:
    hub.add(f"models/{name}", with_decoys(tmp_path / "tiny"))
    half = UNET.replace(".safetensors", ".fp16.safetensors")
    hub.faults.append(Fault(f"/{half}", 503))
    with refused(half, 503):
        StableDiffusion(resolve(name), dtype="float16")
    hub.faults.clear()
    _ = StableDiffusion(resolve(name), dtype="float16").network
    assert half in files_of(hub) and UNET not in files_of(hub)


def test_a_listing_that_cannot_be_had(hub: Hub, name: str) -> None:
    hub.add(f"models/{name}", TINY)
    hub.faults.append(Fault(f"/api/models/{name}", 503))
    with refused(name, 503, kind=AbsentError):
        resolve(name)


@pytest.mark.long
def test_without_a_network_as_with_one(
    hub: Hub, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the Hub listed is remembered; what it never listed is not taken for complete."""
    hub.add(f"models/{name}", with_decoys(tmp_path / "tiny"))
    online = resolve(name, "main")
    stable_diffusion(online)
    _ = StableDiffusion(online, dtype="float16").network  # its files are there, too
    plain = online.root / UNET
    snapshot = {path: path.resolve() for path in online.root.rglob("*.safetensors")}
    commit = online.revision
    with offline():
        hub.log.clear()
        stored = resolve(name, commit)
        assert stored == online and stored.listing == online.listing
        stable_diffusion(stored)
        plain.unlink()
        with refused(UNET):
            StableDiffusion(stored)
        assert hub.log == []
        plain.symlink_to(os.path.relpath(snapshot[plain], plain.parent))
        stable_diffusion(stored)
        # A cache as an older client of the Hub fills it, for which nobody stored a listing.
        shutil.copytree(
            tmp_path / "cache" / "hub",
            tmp_path / "older",
            symlinks=True,
            ignore=lambda *_: ["trees"],
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "older"))
        monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "empty-cache"))
        unlisted = resolve(name, commit)
        assert unlisted == online and unlisted.listing is None
        stable_diffusion(unlisted)
        (unlisted.root / UNET).unlink()
        with refused("unet/", "the Hub was not asked"):
            StableDiffusion(unlisted)
        assert hub.log == []


@pytest.mark.long
@pytest.mark.skipif(
    not hasattr(huggingface_hub, "get_cached_repo_tree"), reason="the client stores no listing"
)
@pytest.mark.parametrize("is_listed", [False, True])
def test_half_precision_without_a_network_of_what_another_program_fetched(
    is_listed: bool, hub: Hub, name: str, tmp_path: Path
) -> None:
    """Full precision is taken where the stored listing has no other, and only there."""
    hub.add(f"models/{name}", copy_pipeline(TINY, tmp_path / "tiny"))
    half = UNET.replace(".safetensors", ".fp16.safetensors")
    if is_listed:
        hub.files[f"models/{name}"][half] = b"not fetched"
    huggingface_hub.snapshot_download(name, ignore_patterns=["*.fp16.safetensors"])
    with offline():
        hub.log.clear()
        if is_listed:
            with refused(half):
                StableDiffusion(resolve(name), dtype="float16")
        else:
            _ = StableDiffusion(resolve(name), dtype="float16").network
        assert hub.log == []
