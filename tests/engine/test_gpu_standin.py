"""All classes on a stand-in for a GPU: full calls, few shapes, and no waiting of the host."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from helpers.matrix import matrix
from helpers.standin import KINDS, denoiser_of, layout_of, stand
from torch.utils._pytree import tree_map_only

from bench.engine import trees
from bench.engine.denoiser import CheckedDenoiser, compile_network
from bench.engine.scoring import times

FEW: dict[str, Any] = {"images": 2, "draws": 4}  # a run of a few batches
# One of each way in which a network is called: of a UNet, with labels, with one length of prompts,
# with several, with padded ones, and in frames; and by code that reads values.
UNLIKE = ("sdxl", "dit", "sd3", "CogView4Pipeline", "QwenImagePipeline", "WanPipeline")
READING = ("AuraFlowPipeline", "HunyuanDiTPipeline")


def some(kinds: Collection[str], always: Collection[str]) -> list[Any]:
    """Return cases of classes; those that are always tried need a diffusers that has them."""
    return matrix(kinds, [kind for kind in always if kind in kinds])


@pytest.mark.parametrize("kind", some(KINDS, [*UNLIKE, *READING]))
def test_a_batch_is_one_call_and_the_host_never_waits_in_our_code(kind: str) -> None:
    run = stand(kind, **FEW)
    assert run.decided == 2
    assert not run.ours, run.ours
    assert len(run.calls) == run.batches < run.cells / 4


def test_calls_of_one_level_fill_up_with_the_images_in_progress() -> None:
    few, many = (stand("AuraFlowPipeline", images=images, draws=4) for images in (2, 12))
    assert many.cells / len(many.calls) > 16 > few.cells / len(few.calls)


@pytest.mark.parametrize("variant", ["own_noise", "tree_of_classes"])
@pytest.mark.parametrize("kind", matrix(["sd3", "CogView4Pipeline", *READING], ["sd3"]))
def test_so_it_is_with_own_draws_and_with_a_tree_of_classes(kind: str, variant: str) -> None:
    run = stand(kind, **FEW, **{variant: True})
    assert not run.ours and len(run.calls) == run.batches


@pytest.mark.parametrize("kind", some(KINDS, ["sdxl", "WanPipeline"]))
def test_a_layout_lays_2d_convolutions_out_and_nothing_else(kind: str) -> None:
    laid, weights = layout_of(kind)
    assert laid == weights


def in_static_memory(function: Any) -> Any:
    """Return a function whose results its next call overwrites, as a replay does."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return tree_map_only(torch.Tensor, kept, function(*arguments, **keywords))

    return call


def kept(result: torch.Tensor) -> torch.Tensor:
    return MEMORY.setdefault(tuple(result.shape), torch.empty_like(result)).copy_(result)


MEMORY: dict[tuple[int, ...], torch.Tensor] = {}


def test_a_batch_of_two_lengths_is_two_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda f, dynamic, mode: in_static_memory(f))
    monkeypatch.setattr("bench.engine.denoiser.REPEATED", 2.0)  # blocks are not compiled alone
    denoiser, conditioning = denoiser_of("CogView4Pipeline", on_meta=False)
    checked = CheckedDenoiser(denoiser, "CogView4")
    keys = checked.batch_keys(conditioning)
    rows = torch.tensor([int((keys == keys[0]).argmax()), int((keys != keys[0]).argmax())])
    both = trees.rows(conditioning, rows)
    x_t = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    time = times(denoiser.levels, np.array([100, 900]))
    with torch.no_grad():
        wanted = denoiser.denoise(x_t, time, both)
        compile_network(checked, conditioning)
        torch.testing.assert_close(denoiser.denoise(x_t, time, both), wanted)
