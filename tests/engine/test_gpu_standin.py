"""All classes on a stand-in for a GPU: full calls, few shapes, and no waiting of the host."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import released
from helpers.engines import assert_same, outcomes, prepared
from helpers.matrix import matrix
from helpers.standin import KINDS, READ_VALUES, TEXTS, denoiser_of, layout_of, stand

from bench.contracts.decision import Decided
from bench.engine import trees
from bench.engine.denoiser import CheckedDenoiser, compile_network
from bench.engine.embeddings import embed_prompts
from bench.engine.scoring import times
from bench.errors import BenchWarning
from bench_plugins.backbones.pipeline import PipelineDenoiser

FEW: dict[str, Any] = {"images": 2, "draws": 4}  # a run of a few batches
# Their networks are called as those of SDXL, Flux and PixArt.
ALIKE = ("LatentConsistencyModelPipeline", "KolorsPipeline", "schnell", "sigma")


def some(kinds: Sequence[str]) -> list[Any]:
    """Return the classes, of which those that are like others are further cases."""
    return matrix(kinds, [kind for kind in kinds if kind not in ALIKE])


@pytest.mark.parametrize("kind", some(KINDS))
def test_a_batch_is_one_call_and_the_host_never_waits_in_our_code(kind: str) -> None:
    run = stand(kind, **FEW)
    assert run.decided == 2
    assert not run.ours, run.ours
    assert len(run.calls) == run.batches < run.cells / 4


def test_calls_of_one_level_fill_up_with_the_images_in_progress() -> None:
    few, many = (stand("AuraFlowPipeline", images=images, draws=4) for images in (2, 12))
    assert many.cells / len(many.calls) > 16 > few.cells / len(few.calls)


@pytest.mark.parametrize("variant", ["own_noise", "tree_of_classes"])
@pytest.mark.parametrize("kind", ["HunyuanDiTPipeline", "CogView4Pipeline", "sd3"])
def test_so_it_is_with_own_draws_and_with_a_tree_of_classes(kind: str, variant: str) -> None:
    run = stand(kind, **FEW, **{variant: True})
    assert not run.ours and len(run.calls) == run.batches


@pytest.mark.parametrize("kind", some(KINDS))
def test_a_layout_lays_2d_convolutions_out_and_nothing_else(kind: str) -> None:
    laid, _, weights = layout_of(kind).partition(" of ")
    assert laid == weights


@pytest.mark.parametrize("kind", some([kind for kind in KINDS if kind not in READ_VALUES]))
def test_a_compiled_network_has_a_shape_per_length_at_most(kind: str) -> None:
    """Padded prompts of Qwen-Image are predicted as they are alone, so it has one shape."""
    run = stand(kind, one_shape=True, **FEW, real=True)
    assert len(set(run.calls)) <= run.lengths


def in_static_memory(graph: torch.fx.GraphModule, inputs: Any) -> Any:
    """Return a graph whose results the next call of any overwrites, as a replay does."""

    def call(*arguments: Any) -> Any:
        results = []
        for result in graph(*arguments):
            buffer = MEMORY.setdefault(tuple(result.shape), torch.empty_like(result))
            results.append(buffer.copy_(result))
        return results

    return call


MEMORY: dict[tuple[int, ...], torch.Tensor] = {}


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: Any = torch.compile
    torch.compiler.reset()
    monkeypatch.setattr(
        torch, "compile", lambda f, dynamic, mode: compiled(f, backend=in_static_memory)
    )


@pytest.mark.usefixtures("replayed")
def test_two_batches_in_flight_do_not_overwrite_each_other(wanted: dict[str, Decided]) -> None:
    engine, run, samples = prepared(compile=True)
    engine.depth = 2
    assert_same(outcomes(engine, run, samples), wanted)


@pytest.mark.usefixtures("replayed")
def test_a_batch_of_two_lengths_is_two_replays(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_lora_is_fused_before_compiling_unless_that_would_round_it(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    from helpers.loras import save_lora  # here: it needs peft

    pipe = released.made("StableDiffusionPipeline")
    pipe.load_lora_weights(save_lora(pipe, tmp_path))
    denoiser = PipelineDenoiser(pipe.to(dtype), resolution=16)
    checked = CheckedDenoiser(denoiser, "with a LoRA")
    with torch.inference_mode():
        conditioning = embed_prompts(checked, f"with a LoRA {dtype}", TEXTS)
        x_t = torch.randn(len(TEXTS), *denoiser.latent_shape)
        time = times(denoiser.levels, np.full(len(TEXTS), 500))
        before = denoiser.denoise(x_t, time, conditioning)
        fused = dtype == torch.float32
        with nullcontext() if fused else pytest.warns(BenchWarning, match="--compile"):
            assert checked.prepare_compiling(conditioning)
        after = denoiser.denoise(x_t, time, conditioning)
    names = [name for name, _ in pipe.unet.named_parameters() if "lora" in name]
    assert bool(names) != fused
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4 if fused else 0)
