"""LoRAs and single files, from the command line."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.command import bench as command
from helpers.families import save
from helpers.loras import save_lora
from helpers.matrix import matrix
from helpers.pipelines import save_indexed
from helpers.single_file import save_single_file
from safetensors.torch import load_file, save_file

import bench
from bench.inputs.weights import Lora, add_files, resolve
from bench.running.command import reproducing_command
from bench.store.cells import read_cells
from bench.store.folder import read_manifest
from bench_plugins.backbones._files import config_source
from bench_plugins.backbones._gate import modules_of
from bench_plugins.backbones.families import StableDiffusion, StableDiffusionXL
from bench_plugins.backbones.pipeline import PipelineDenoiser

RUN = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 2, "--save-errors",
       "--batch-size", 16)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines") / "small"
    save("sdxl", place)
    return place


@pytest.fixture(scope="module")
def loras(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    root = tmp_path_factory.mktemp("loras")
    first = save_lora(pipe, root / "one")
    return first, save_lora(pipe, root / "two", seed=1).rename(root / "style.safetensors")


@pytest.mark.long
def test_loras_are_added_at_their_scales(
    folder: Path, loras: tuple[Path, Path], tmp_path: Path
) -> None:
    """Errors are those of a pipeline in memory with the same LoRAs; the content counts."""
    first, second = loras
    options = (*RUN, "--backbone", folder, "--results", tmp_path, "--json")
    plain = command(*options).json
    added = command(*options, "--lora", first.parent, "--lora", f"{second}:0.5")
    assert added.code == 0, added.err
    assert "without a backbone family" not in added.err
    assert added.json["run_id"].startswith("digits-small-pytorch-lora-weights-style-full-")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    for file, adapter in ((first, "a"), (second, "b")):  # older diffusers need a file's name
        pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=adapter)
    pipe.set_adapters(["a", "b"], [1.0, 0.5])
    live = bench.run("digits", pipe, strategy="full", params={"draws": 2}, limit=2, batch_size=16,
                     save_errors=True, results=tmp_path)  # fmt: skip
    errors = [errors_of(Path(r["results_dir"])) for r in (plain, added.json, live)]
    np.testing.assert_allclose(errors[1], errors[2], rtol=1e-5)
    assert not np.allclose(errors[0], errors[1], rtol=1e-2)
    in_memory = read_manifest(live.folder).backbone.in_memory
    assert in_memory is not None and list(in_memory["adapters"]["unet"]) == ["a", "b"]
    shown = command("show", added.json["results_dir"], COLUMNS="400").out
    assert "LoRA: one × 1, style × 0.5" in " ".join(shown.split())
    board = command("leaderboard", tmp_path, COLUMNS="400").out
    assert "LoRA one × 1, style × 0.5" in " ".join(board.split())
    ids = {command(*options, "--lora", f"{first}:{s}", "--dry-run").json["run_id"] for s in (1, 2)}
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(first.read_bytes())
    ids.add(command(*options, "--lora", copied, "--dry-run").json["run_id"].replace(
        "copy", "pytorch-lora-weights"))  # fmt: skip
    assert len(ids) == 2


def errors_of(folder: Path) -> Any:
    samples = read_manifest(folder).samples
    return np.stack([read_cells(folder / "errors", sample, (10, 2)) for sample in samples])


@pytest.mark.long
def test_loras_that_do_not_fit(folder: Path, loras: tuple[Path, Path], tmp_path: Path) -> None:
    options = (*RUN, "--backbone", folder, "--results", tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"no header")
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    other = {f"unet.nowhere.to_q.{n}.weight": torch.ones(2, 2) for n in ("lora_A", "lora_B")}
    save_file({**load_file(loras[0]), **other}, tmp_path / "more.safetensors")
    wide = {name: torch.cat([t, t], dim=-1) for name, t in load_file(loras[0]).items()}
    save_file(wide, tmp_path / "wide.safetensors")
    for lora, message in {
        tmp_path / "absent.safetensors": "expected a .safetensors file",
        tmp_path / "x.safetensors": "the file does not contain a LoRA",
        unet: "the file does not contain a LoRA",
        folder: "the folder holds 0 safetensors",
        tmp_path / "more.safetensors": "does not fit StableDiffusionXLPipeline",
        tmp_path / "wide.safetensors": "does not fit StableDiffusionXLPipeline",
    }.items():
        done = command(*options, "--lora", lora)
        assert done.code == 2 and message in done.err and "Traceback" not in done.err, done.err
    done = command(*RUN, "--backbone", "clip-b32", "--lora", loras[0], "--results", tmp_path)
    assert done.code == 2 and "--lora is for denoisers" in done.err
    done = command(*RUN, "--backbone", loras[0], "--results", tmp_path)
    assert done.code == 2 and f"--backbone PIPELINE --lora {loras[0]}" in done.err


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and its tensors as one file of the original implementation."""
    root = tmp_path_factory.mktemp("single")
    save_indexed(root / "whole")
    pipe = diffusers.DiffusionPipeline.from_pretrained(root / "whole")
    return root / "whole", save_single_file(pipe, root / "my-model.safetensors")


@pytest.mark.long
def test_a_single_file_with_the_configs_of_a_folder(
    single: tuple[Path, Path], tmp_path: Path
) -> None:
    """It makes the errors of the folder it was made from; the folder's own tensors do not count."""
    whole, file = single
    configs = tmp_path / "configs"
    shutil.copytree(whole, configs, ignore=shutil.ignore_patterns("*.safetensors"))
    options = (*RUN, "--results", tmp_path, "--offline", "--json")
    one = command(*options, "--backbone", configs, "--weights", file)
    assert one.code == 0, one.err
    assert one.json["run_id"].startswith("digits-my-model-full-")
    hand = command(*options, "--backbone", whole)
    errors = [errors_of(Path(done.json["results_dir"])) for done in (one, hand)]
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-4)
    again = reproducing_command(read_manifest(Path(one.json["results_dir"])))
    assert f"--backbone {configs}" in again and f"--weights {file}" in again
    repeated = command(*shlex.split(again)[1:], "--results", tmp_path, "--json")
    assert repeated.json["run_id"] == one.json["run_id"], repeated.err


@pytest.mark.parametrize("way", matrix(["LoRA", "single file"], ["single file"]))
def test_in_half_precision(
    way: str, folder: Path, loras: tuple[Path, Path], single: tuple[Path, Path]
) -> None:
    """The network and CLIP are cast, and the autoencoder is not, as of a folder's own tensors."""
    place, added = (folder, [Lora(str(loras[0]), 1.0)]) if way == "LoRA" else (single[0], [])
    file = str(single[1]) if way == "single file" else None
    weights = add_files(resolve(str(place)), added, file)
    family = StableDiffusionXL if way == "LoRA" else StableDiffusion
    made: Any = family(weights, dtype="float16", resolution=16)
    pipe = diffusers.DiffusionPipeline.from_pretrained(place, torch_dtype=torch.float16)
    for lora in added:
        pipe.load_lora_weights(Path(lora.path).parent, weight_name=Path(lora.path).name)
    pipe.vae.to(torch.float32)
    own = PipelineDenoiser(pipe, resolution=16)
    dtypes = {name: part.dtype for name, part in modules_of(made.pipe).items()}
    assert dtypes == {name: part.dtype for name, part in modules_of(pipe).items()}
    assert dtypes["unet"] == torch.float16 and dtypes["vae"] == torch.float32
    x_t = torch.randn(1, *own.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answers = [
            d.denoise(x_t, torch.tensor([500]), d.encode_prompts(["a"])) for d in (made, own)
        ]
    assert answers[0].dtype == torch.float16
    torch.testing.assert_close(*answers)


def test_single_files_that_cannot_be_used(single: tuple[Path, Path], tmp_path: Path) -> None:
    whole, file = single
    assert config_source(file) == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    options = (*RUN, "--results", tmp_path, "--offline", "--backbone")
    save_file({"weight": torch.ones(3)}, tmp_path / "odd.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    packed = {name: t.to(torch.float8_e4m3fn) for name, t in load_file(file).items()}
    save_file(packed, tmp_path / "packed.safetensors")
    part = {n: t for n, t in load_file(file).items() if not n.startswith("first_stage_model.")}
    save_file(part, tmp_path / "part.safetensors")
    for words, message in (
        ((file,), "'stable-diffusion-v1-5/stable-diffusion-v1-5' are not on this machine"),
        ((tmp_path / "none.safetensors",), "none.safetensors does not exist"),
        (
            (tmp_path / "odd.safetensors",),
            "is not a model that diffusers recognises. Name a folder or",
        ),
        ((tmp_path / "cut.safetensors",), "cut.safetensors is damaged"),
        ((whole, "--weights", tmp_path / "packed.safetensors"), "the model is quantised; load it"),
        ((whole, "--weights", tmp_path / "part.safetensors"), "cannot be loaded"),
        ((whole, "--weights", whole), "--weights needs a registered backbone"),
    ):
        done = command(*options, *words)
        assert done.code == 2 and "Traceback" not in done.err, done.err
        assert message in " ".join(done.err.split()), done.err
