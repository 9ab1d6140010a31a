"""Explain what a folder without a `model_index.json` contains, if it is not Stable Diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import is_adapter, is_lora
from bench_plugins.backbones._components import NETWORKS, PIPELINE_INDEX

CONFIG = "config.json"


def without_index(reader: type, weights: Weights, error: UserError) -> UserError:
    """Return an error that says what a folder contains, or else `error`, which `reader` raised."""
    if weights.find(CONFIG):
        config = weights.read(CONFIG)
        model_type = config.get("_class_name") or config.get("model_type")
        if names := _classifiers(model_type):
            ways = " or ".join(f"--backbone {name} --weights {weights.location}" for name in names)
            return weights.error(
                CONFIG, f"describes {model_type!r}, which is not a diffusers pipeline. Use {ways}"
            )
        return weights.error(
            CONFIG,
            f"describes {model_type!r:.100}, a single component of a pipeline. Name the folder that"
            " contains all components and a model_index.json",
        )
    if not any(weights.find(f"{network}/{CONFIG}") for network in NETWORKS):
        return _without_network(weights) or error
    for spec in _families(reader, weights):
        return weights.error(
            PIPELINE_INDEX,
            "does not exist, so the folder was read as Stable Diffusion, which it is not. Use"
            f" --backbone {spec.name} --weights {weights.location}",
        )
    return error


def _classifiers(model_type: object) -> list[str]:
    """Return the names of classifier backbones for a model type of transformers."""
    return [
        spec.name
        for spec in load_plugins().backbones
        if spec.scorer == "classifier"
        and spec.family == spec.name
        # SigLIP 2 with a fixed resolution has the model type of SigLIP.
        and model_type in (spec.name, spec.name.removesuffix("2"))
    ]


def _without_network(weights: Weights) -> UserError | None:
    """Return an error if a local folder without a network contains an adapter."""
    if weights.revision is not None:
        return None
    for file in sorted(Path(weights.location).glob("*.safetensors")):
        if is_lora(file):
            return weights.error(
                file.name,
                "is a LoRA, not a whole model. Add it to the pipeline that it was trained for:"
                f" --backbone PIPELINE --lora {file}",
            )
        if is_adapter(file, in_component=False):
            return weights.error(
                file.name,
                "looks like a learned embedding (textual inversion). Load it into a diffusers"
                " pipeline with pipe.load_textual_inversion, and hand the pipeline over:"
                " bench.run(DATASET, backbone=pipe)",
            )
    return None


def _families(reader: type, weights: Weights) -> Iterator[BackboneSpec]:
    """Yield the specs of other backbones for pipelines that can load the folder."""
    for spec in load_plugins().backbones:
        if not spec.takes_folders or "*" in spec.pipelines or spec.scorer != "denoiser":
            continue
        if load_target(spec) is reader:
            continue
        parameters: dict[str, Any] = {"dtype": "float32", **spec.resolve_parameters({})}
        with suppress(UserError):
            load_target(spec).check_weights(weights, **parameters)
            yield spec
