"""Operations are counted, not timed: on the meta device as where tensors are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.matrix import matrix
from helpers.places import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.discovery.loading import load_plugins
from bench.inputs.weights import resolve
from bench_plugins.backbones.families import StableDiffusion

SHIPPED = ROOT / "plugins/bench_plugins/backbones/weights"


@pytest.mark.parametrize("kind", matrix(["sd15", "sd21"], ["sd21"]))
def test_counts_are_those_of_real_tensors(kind: str, pipelines: dict[str, Path]) -> None:
    weights = resolve(str(pipelines[kind]))
    backbone = StableDiffusion(weights)
    x_t, t = torch.zeros(1, *backbone.latent_shape), torch.zeros(1)
    conditioning: Any = backbone.encode_prompts(["a"])
    conditioning["0.0"].requires_grad_()
    backbone.denoise(x_t, t, conditioning)  # the first call tries a mixed batch, too
    counts = []
    for gradient in (False, True):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            prediction = backbone.denoise(x_t, t, conditioning)
            if gradient:
                torch.autograd.backward(prediction.sum())
        counts.append(counter.get_total_flops())
    assert StableDiffusion.evaluation_flops(weights) == counts[0]
    assert StableDiffusion.linearisation_cost(weights) == round(counts[1] / counts[0], 3)


def test_a_call_of_the_same_shapes_is_computed_once(pipelines: dict[str, Path]) -> None:
    encoder = StableDiffusion.empty(resolve(str(pipelines["sd21"])), "float32").pipe.text_encoder
    ids, computed = torch.zeros(1, 77, dtype=torch.int64), []
    next(encoder.children()).register_forward_pre_hook(lambda *_: computed.append(1))
    with torch.no_grad():
        first, again, pair = encoder(ids), encoder(ids + 1), encoder(ids.expand(2, -1))
    assert (len(computed), again[0].shape, len(pair[0])) == (2, first[0].shape, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(ids)
    assert len(computed) == 3
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("name", "cost"),
    matrix([("tiny_digits", 1.984), ("tiny_landuse", 1.988)], [("tiny_digits", 1.984)]),
)
def test_the_price_of_a_linearised_draw_of_the_shipped_weights(name: str, cost: float) -> None:
    """Published costs rest on these figures: no version of torch or diffusers may move them."""
    assert StableDiffusion.linearisation_cost(resolve(str(SHIPPED / name))) == cost


def test_declared_operations_of_the_shipped_weights() -> None:
    for name in ("tiny_digits", "tiny_landuse"):
        declared = load_plugins().backbones.get(name.replace("_", "-")).flops
        counted = StableDiffusion.evaluation_flops(resolve(str(SHIPPED / name)))
        assert declared == pytest.approx(counted, rel=1e-2)
