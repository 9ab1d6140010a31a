"""Weights in use: what LoRAs and single files predict, what is read, and what is kept of it."""

import json
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.command import bench as command
from helpers.damage import (
    TEXT,
    TINY,
    UNET,
    copy_pipeline,
    damaged,
    every,
    says,
    sets,
    tensors,
    truncates,
)
from helpers.loras import save_lora
from helpers.matrix import matrix
from helpers.refusals import refused
from helpers.weights import LORA, SINGLE, Forms
from helpers.weights import forms as forms
from safetensors.torch import load_file, save_file

import bench
from bench.inputs.weights import Lora, add_files, resolve
from bench.running.command import reproducing_command
from bench.store.folder import read_manifest
from bench.store.formats.cells import read_cells
from bench_plugins.backbones._pipelines.files import load_pipeline
from bench_plugins.backbones._pipelines.gate import modules_of
from bench_plugins.backbones._weights.checkpoint import is_finite
from bench_plugins.backbones.families import StableDiffusion
from bench_plugins.backbones.pipeline import PipelineDenoiser
from bench_plugins.backbones.pipeline_folder import FolderPipeline

RUN = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 2, "--save-errors",
       "--batch-size", 16)  # fmt: skip


def copied(forms: Forms, folder: Path) -> Path:
    """Copy the small Stable Diffusion."""
    return damaged(forms("indexed"), folder, lambda folder: None)


@pytest.mark.long
def test_loras_are_added_at_their_scales(forms: Forms, tmp_path: Path) -> None:
    """Errors are those of a pipeline in memory with the same LoRAs; the content counts."""
    folder = copied(forms, tmp_path / "small")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    first = save_lora(pipe, tmp_path / "one")
    second = save_lora(pipe, tmp_path / "two", seed=1).rename(tmp_path / "style.safetensors")
    options = (*RUN, "--backbone", folder, "--results", tmp_path, "--json")
    plain = command(*options).json
    added = command(*options, "--lora", first.parent, "--lora", f"{second}:0.5")
    assert added.code == 0, added.err
    assert "without a backbone family" not in added.err
    assert added.json["run_id"].startswith("digits-small-pytorch-lora-weights-style-full-")
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
    board = command("leaderboard", "--wide", tmp_path, COLUMNS="900").out
    assert "LoRA one × 1, style × 0.5" in " ".join(board.split())
    ids = {command(*options, "--lora", f"{first}:{s}", "--dry-run").json["run_id"] for s in (1, 2)}
    other = shutil.copy(first, tmp_path / "copy.safetensors")
    ids.add(command(*options, "--lora", other, "--dry-run").json["run_id"].replace(
        "copy", "pytorch-lora-weights"))  # fmt: skip
    assert len(ids) == 2


def errors_of(folder: Path) -> Any:
    samples = read_manifest(folder).samples
    return np.stack([read_cells(folder / "errors", sample, (10, 2)) for sample in samples])


@pytest.mark.long
def test_a_single_file_with_the_configs_of_a_folder(forms: Forms, tmp_path: Path) -> None:
    """It makes the errors of the folder it was made from; the folder's own tensors do not count."""
    whole = copied(forms, tmp_path / "whole")
    file = (whole / SINGLE).rename(tmp_path / "my-model.safetensors")
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


@pytest.mark.parametrize("way", matrix(["LoRA", "single file"], ["LoRA"]))
def test_in_half_precision(way: str, forms: Forms) -> None:
    """The network and CLIP are cast, and the autoencoder is not, as of a folder's own tensors."""
    place = forms("indexed")
    added = [Lora(str(place / LORA), 1.0)] if way == "LoRA" else []
    weights = add_files(resolve(str(place)), added, None if added else str(place / SINGLE))
    made: Any = StableDiffusion(weights, dtype="float16", resolution=16)
    pipe = diffusers.DiffusionPipeline.from_pretrained(place, torch_dtype=torch.float16)
    for _ in added:
        pipe.load_lora_weights(place, weight_name=LORA)
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


def test_what_single_files_hold_beside_a_pipeline(forms: Forms, tmp_path: Path) -> None:
    whole = forms("indexed")
    content = load_file(whole / SINGLE)
    names = (
        "model_ema.decay", "betas", "sqrt_alphas_cumprod", "posterior_mean_coef1", "logvar",
        "cond_stage_model.logit_scale", "denoiser.sigmas",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
    )  # fmt: skip
    save_file({**content, **{name: torch.ones(3) for name in names}}, tmp_path / "more.safetensors")
    weights = add_files(resolve(str(whole)), [], str(tmp_path / "more.safetensors"))
    load_pipeline(FolderPipeline.empty(weights, "float32"))


def test_the_dropout_of_a_lora_is_off(forms: Forms, tmp_path: Path) -> None:
    """Newer files say with which one it was trained, and newer diffusers restore it."""
    whole = forms("indexed")
    config = {"r": 2, "lora_alpha": 2, "lora_dropout": 0.5, "target_modules": ["to_q", "to_v"]}
    content = json.dumps({f"unet.{name}": value for name, value in config.items()})
    file = tmp_path / "lora.safetensors"
    save_file(load_file(whole / LORA), file, {"format": "pt", "lora_adapter_metadata": content})
    weights = add_files(resolve(str(whole)), [Lora(str(file), 1.0)], None)
    unet = load_pipeline(FolderPipeline.empty(weights, "float32")).unet
    assert not [name for name, module in unet.named_modules() if module.training]


def test_embeddings_are_kept_only_of_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.embeddings import embed_prompts

    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    backbone = CheckedDenoiser(StableDiffusion(resolve(str(folder))), "x")
    truncates(TEXT)(folder)
    for _ in range(2):
        with refused(TEXT):
            embed_prompts(backbone, "key", ["zero"])
    shutil.copy(TINY / TEXT, folder / TEXT)
    given = embed_prompts(backbone, "key", ["zero"])
    monkeypatch.setattr(
        backbone, "encode_prompts", lambda texts: {"0.0": torch.full((1, 32, 64), float("nan"))}
    )
    torch.testing.assert_close(embed_prompts(backbone, "key", ["zero"]), given)
    for _ in range(2):
        with refused("'one'"):
            embed_prompts(backbone, "key", ["one"])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_any_value_that_is_not_finite_is_found(dtype: str) -> None:
    values = torch.linspace(-6e4, 6e4, 4099).to(getattr(torch, dtype))
    assert is_finite(values) and is_finite(values[:0]) and is_finite(values[0])
    for value, place in product((float("nan"), float("inf"), -float("inf")), (0, 2050, 4098)):
        changed = values.clone()
        changed[place] = value
        assert not is_finite(changed)
    assert is_finite(torch.arange(3)) and is_finite(torch.ones(2, dtype=torch.bool))


@pytest.mark.long
def test_values_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    tensors(UNET, every(torch.Tensor.float))(folder)
    tensors(UNET, sets(1e5))(folder)
    _ = StableDiffusion(resolve(str(folder))).network
    with refused("torch.float16", UNET):
        _ = StableDiffusion(resolve(str(folder)), dtype="float16").network


def test_threads_that_load_at_once_leave_other_modules_alone() -> None:
    together = Barrier(4)

    def load(_: int) -> Any:
        together.wait()
        return bench.load_backbone("tiny-digits")

    with ThreadPoolExecutor(4) as pool:
        backbones = list(pool.map(load, range(4)))
    assert torch.nn.Linear(1, 1).weight.device.type == "cpu"
    backbone, texts = backbones[0], ["one", "two"]

    def encode(_: int) -> Any:
        together.wait()
        return backbone.encode_prompts(texts)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(encode, range(4))
    for tree in others:
        torch.testing.assert_close(tree, first, rtol=0, atol=0)
    assert torch.nn.Linear(1, 1).weight.device.type == "cpu"


def test_what_no_prediction_needs_is_not_read(forms: Forms, tmp_path: Path) -> None:
    entry = ["transformers", "CLIPVisionModelWithProjection"]
    folder = damaged(
        forms("indexed"), tmp_path / "copy", says("model_index.json", image_encoder=entry)
    )
    assert (
        load_pipeline(FolderPipeline.empty(resolve(str(folder)), "float32")).image_encoder is None
    )
