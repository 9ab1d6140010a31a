"""Weights are checked before a run scores, and what was computed with them is never mixed up."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner
from helpers.damage import TEXT, UNET, copy_pipeline, every, sets, tensors, truncates
from helpers.matrix import matrix
from helpers.places import ROOT
from safetensors.torch import load_file, save_file

import bench as toolkit
from bench.cli.main import cli
from bench.errors import UserError
from bench.inputs.weights import resolve
from bench_plugins.backbones._checkpoint import is_finite
from bench_plugins.backbones.families import StableDiffusion

TINY = ROOT / "plugins/bench_plugins/backbones/weights/tiny_digits"


@pytest.mark.parametrize("command", matrix(["run", "classify", "dry-run"], ["dry-run"]))
def test_the_command_ends_with_2_before_scoring(command: str, tmp_path: Path) -> None:
    if command != "classify" and int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("transformers 4 renames these tensors, so that loading decides what is missing")
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    tensors(TEXT, lambda content: content.pop(sorted(content)[0]))(folder)
    arguments = {
        "run": ["run", "digits", "--limit", "1", "--results", str(tmp_path / "results")],
        "classify": ["classify", str(TINY / "samples.png"), "--dataset", "digits"],
        "dry-run": ["run", "digits", "--dry-run"],
    }[command]
    result = CliRunner().invoke(cli, [*arguments, "--backbone", str(folder)])
    assert isinstance(result.exception, UserError) and result.exception.exit_code == 2
    assert "text_encoder/ lacks tensor" in str(result.exception)
    assert not (tmp_path / "results").exists()


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
        with pytest.raises(UserError, match=r"text_encoder/.* is damaged"):
            embed_prompts(backbone, "key", ["zero"])
    shutil.copy(TINY / TEXT, folder / TEXT)
    given = embed_prompts(backbone, "key", ["zero"])
    monkeypatch.setattr(
        backbone, "encode_prompts", lambda texts: {"0.0": torch.full((1, 32, 64), float("nan"))}
    )
    torch.testing.assert_close(embed_prompts(backbone, "key", ["zero"]), given)
    for _ in range(2):
        with pytest.raises(UserError, match="'one' is not finite"):
            embed_prompts(backbone, "key", ["one"])


def test_two_weights_share_no_embedding(tmp_path: Path) -> None:
    first = copy_pipeline(TINY, tmp_path / "first")
    other = copy_pipeline(TINY, tmp_path / "other")
    assert resolve(str(first)).fingerprint == resolve(str(other)).fingerprint
    save_file({**load_file(other / TEXT), "x": torch.zeros(1)}, other / TEXT)
    assert resolve(str(first)).fingerprint != resolve(str(other)).fingerprint


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
    with pytest.raises(UserError, match=r"not finite in torch\.float16"):
        _ = StableDiffusion(resolve(str(folder)), dtype="float16").network


def test_threads_that_load_at_once_leave_other_modules_alone() -> None:
    together = Barrier(4)

    def load(_: int) -> Any:
        together.wait()
        return toolkit.load_backbone("tiny-digits")

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
