"""Backbones: text-to-image diffusion models that score images against prompts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bench import hookimpl
from bench.contracts.specs import ANY_PIPELINE, Parameter
from bench_plugins.backbones._declared import register_classifiers, register_families

# As a variable, since importing diffusers already makes transformers warn of what we do not use.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_TARGET = "bench_plugins.backbones.families:StableDiffusion"
_PARAMETERS: dict[str, Any] = {
    "normalize": Parameter("half", "half: pixels in [-1, 1]; cifar10: the published notebook's"),
    "resolution": Parameter(None, "image side in pixels; None: the model's own", type=int),
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
        family="sd",
        licence="Apache-2.0",
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
        family="sd",
        licence="Apache-2.0",
        flops=355e6,
        parameters=_PARAMETERS,
    )
    register_families(register, _PARAMETERS)
    register(
        "folder-pipeline",
        target="bench_plugins.backbones.pipeline_folder:FolderPipeline",
        summary="any other pipeline folder, run by the pipeline's own code: --backbone ./folder",
        trained_on="unknown",
        family="pipeline",
        pipelines=(ANY_PIPELINE,),
        parameters=_PARAMETERS,
    )
    register(
        "pipeline",
        target="bench_plugins.backbones.pipeline_live:LivePipeline",
        summary="a pipeline of diffusers in memory: bench.run(DATASET, backbone=pipe) in Python",
        trained_on="unknown",
        family="pipeline",
        objects=("diffusers.DiffusionPipeline",),
        parameters=_PARAMETERS,
    )
    register_classifiers(register)
