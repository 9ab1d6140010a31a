"""Errors that say what a folder without an index is, if it is not Stable Diffusion."""

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
from bench_plugins.backbones._parts import NETWORKS

CONFIG = "config.json"


def without_index(reader: type, weights: Weights, error: UserError) -> UserError:
    """Return the error of a folder without an index: what it is instead, or `error` itself.

    `reader` is the class that could not read it.
    """
    if weights.find(CONFIG):
        config = weights.read(CONFIG)
        kind = config.get("_class_name") or config.get("model_type")
        if names := _classifiers(kind):
            ways = " or ".join(f"--backbone {name} --weights {weights.location}" for name in names)
            return weights.error(
                CONFIG, f"describes {kind!r}, no pipeline of diffusers: say {ways}"
            )
        return weights.error(
            CONFIG,
            f"describes {kind!r:.100}: one part, not a pipeline. A folder with all parts and a"
            " model_index.json is wanted",
        )
    if not any(weights.find(f"{part}/{CONFIG}") for part in NETWORKS):
        return _without_network(weights) or error
    for spec in _families(reader, weights):
        return weights.error(
            "model_index.json",
            "is not there, so that it is read as Stable Diffusion, which it is not: say"
            f" --backbone {spec.name} --weights {weights.location}",
        )
    return error


def _classifiers(model_type: object) -> list[str]:
    """Return the classifiers, for the user's own weights, of a model type of transformers."""
    return [
        spec.name
        for spec in load_plugins().backbones
        if spec.scorer == "classifier"
        and spec.family == spec.name
        # SigLIP 2 of a fixed resolution has the type of SigLIP.
        and model_type in (spec.name, spec.name.removesuffix("2"))
    ]


def _without_network(weights: Weights) -> UserError | None:
    if weights.revision is not None:
        return None
    for file in sorted(Path(weights.location).glob("*.safetensors")):
        if is_lora(file):
            return weights.error(
                file.name,
                "is a LoRA alone: name the pipeline that it was made for, --backbone PIPELINE"
                f" --lora {file}",
            )
        if is_adapter(file, in_part=False):
            return weights.error(
                file.name,
                "looks like a learned embedding: load it into a pipeline of diffusers, with"
                " pipe.load_textual_inversion, and hand that over: bench.run(DATASET,"
                " backbone=pipe)",
            )
    return None


def _families(reader: type, weights: Weights) -> Iterator[BackboneSpec]:
    """Yield the other backbones that would load the folder."""
    for spec in load_plugins().backbones:
        if not spec.takes_folders or "*" in spec.pipelines or load_target(spec) is reader:
            continue
        parameters: dict[str, Any] = {"dtype": "float32", **spec.resolve_parameters({})}
        with suppress(UserError):
            load_target(spec).check_weights(weights, **parameters)
            yield spec
