"""Use a diffusers pipeline object that the user has loaded as a backbone.

All of its weights, and whatever was altered in it, are hashed to identify it in a run; see
`identity`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from bench.contracts.levels import Levels
from bench.errors import UserError, warn_user
from bench.inputs.weights import InMemory
from bench_plugins.backbones._pipelines.gate import check_pipeline, modules_of
from bench_plugins.backbones._pipelines.learning import tried_file
from bench_plugins.backbones._pipelines.runner import default_call
from bench_plugins.backbones._weights.components import TORCH_DTYPES
from bench_plugins.backbones._weights.identity import (
    adapter_scales,
    altered_parts,
    component_facts,
    content_hash,
    own_values,
)
from bench_plugins.backbones.pipeline import PipelineDenoiser

# Components that process generated images. None are generated here.
UNUSED_COMPONENTS = ("safety_checker", "feature_extractor", "image_processor")
# Parts of a description that are no parameters of a run.
DESCRIPTIVE = ("source", "dtypes", "scheduler", "quantised", "altered", "handed_over_with")
MAX_DESCRIBED = 20  # altered values that a manifest names


class LiveObject:
    """The user's own object, used as it is."""

    named: Any  # what runs are named after: the pipeline or its model
    device: Any
    dtype: Any

    @property
    def label(self) -> str:
        """Name of the object in runs: that of its source or, if unknown, of its class."""
        source = getattr(self.named, "name_or_path", None)
        return Path(source).name if source else type(self.named).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a run that are fixed by the object."""
        name = str(self.dtype).removeprefix("torch.")  # another one: of a quantised network
        return {"device": str(self.device), "dtype": name if name in TORCH_DTYPES else "float32"}

    @staticmethod
    def weight_parameters(weights: InMemory, **parameters: Any) -> Mapping[str, Any]:
        """Return the object's class, how it is called, and the scales of its adapters."""
        return {n: value for n, value in weights.description.items() if n not in DESCRIPTIVE}

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Raise UserError if the weights are a name, and not an object."""
        if not isinstance(weights, InMemory):
            raise UserError(
                "This backbone is for a pipeline object, which only Python can pass:"
                " bench.run(DATASET, backbone=pipe). For a folder use --backbone FOLDER"
            )


class LivePipeline(LiveObject, PipelineDenoiser):
    """A denoiser backbone made from the user's own pipeline object.

    The pipeline is not changed: its network keeps its memory layout and is not compiled, and no
    component is moved. The arguments are those of `PipelineDenoiser`. Raises UserError if a
    component is in training mode or altered by a hook, or the pipeline cannot be used.
    """

    keeps_defaults = True

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
    ) -> None:
        self.named, self._learned_of = pipe, ""
        chosen: dict[str, Any] = {"resolution": resolution, "call": call and dict(call)}
        chosen["normalize"] = None if normalize == "half" else normalize
        self._chosen = {name: value for name, value in chosen.items() if value}
        self._inspect()

    def _inspect(self) -> None:
        """Check the pipeline, and learn how it is called if more than tensors has changed."""
        pipe = self.named
        check_pipeline(pipe, f"The pipeline {type(pipe).__name__}")
        check_live(modules_of(pipe))
        self._used = {
            name: component
            for name, component in pipe.components.items()
            if not (name in UNUSED_COMPONENTS or component in (None, pipe.scheduler))
        }
        self._altered = altered_parts(self._used, pipe)
        facts = [component_facts(component) for component in pipe.components.values()]
        state = str([facts, self._altered, pipe.config, vars(pipe.scheduler)])
        if state != self._learned_of:
            super().__init__(pipe, **self._chosen)
            self._learned_of = state
            self._compare_with_folder()

    def _compare_with_folder(self) -> None:
        """Warn if a folder of the pipeline would be called with other keywords."""
        usual = {**default_call(self.named), **(self._chosen.get("call") or {})}
        if other := {n: v for n, v in usual.items() if self.runner.call.get(n) != v}:
            warn_user(
                f"The pipeline {type(self.named).__name__} keeps its own defaults; as a folder it"
                f" is called with {', '.join(f'{n}={v}' for n, v in other.items())}, and predicts"
                f" other numbers. For those: bench.load_backbone(pipe, call={other})."
            )

    @property
    @override
    def settings(self) -> dict[str, Any]:
        chosen = {name: value for name, value in self._chosen.items() if name != "call"}
        return {**super().settings, **chosen}

    def content(self) -> InMemory:
        """Describe and hash the pipeline in its present state. Every tensor is read."""
        self._inspect()
        call, chosen = self.runner.call, self._chosen
        described = {**describe(self.pipe), "call": call, "handed_over_with": chosen}
        described = json.loads(json.dumps(described, default=repr))
        if self._altered:
            described["altered"] = [*self._altered][:MAX_DESCRIBED]
        facts = {"class": type(self.pipe).__qualname__, "call": call, **own_values(self.pipe)}
        fingerprint = content_hash(self._used, facts, self._altered, self.levels)
        with torch.no_grad():
            shortest = replace(self.runner, device_override=self.device).shortest.values()
        sums = [leaf.double().sum(-1).tolist() for leaf in shortest]
        self._encoded = f"{sums} {getattr(self.pipe, 'labels', None)}"
        self.tried_path = tried_file(fingerprint, str(self.device), self._chosen)
        return InMemory(self.label, None, fingerprint, backbone=self, description=described)

    @staticmethod
    @override
    def encoder_key(weights: InMemory, **parameters: Any) -> str:
        """Return the key of the weights and of what the pipeline's own code makes of a text."""
        return f"{weights.fingerprint} {weights.backbone._encoded}"

    @staticmethod
    @override
    def token_counts(weights: InMemory, texts: Sequence[str]) -> tuple[list[int], int] | None:
        counted: tuple[list[int], int] | None = weights.backbone.runner.token_counts(texts)
        return counted

    @staticmethod
    @override
    def level_table(weights: InMemory, **parameters: Any) -> Levels:
        levels: Levels = weights.backbone.levels
        return levels

    def save_memory(self) -> bool | None:
        """Return False, because the user's pipeline must not be changed."""
        return False


def check_live(modules: Mapping[str, nn.Module]) -> None:
    """Raise UserError if one of a pipeline's modules is in training mode."""
    for name, module in sorted(modules.items()):
        if module.training and name not in UNUSED_COMPONENTS:
            raise UserError(
                f"The pipeline's {name} is in training mode, which makes dropout random: call"
                f" pipe.{name}.eval() first."
            )


def describe(pipe: Any) -> dict[str, Any]:
    """Return a description of a pipeline for manifests. It does not identify the pipeline."""
    modules = modules_of(pipe)
    adapters = {
        name: scales for name, component in modules.items() if (scales := adapter_scales(component))
    }
    quantised = {
        name: str(getattr(method, "quant_method", method))
        for name, component in modules.items()
        if (
            method := getattr(component, "hf_quantizer", None)
            or getattr(component, "quantization_config", None)
        )
    }
    facts = {
        "class": type(pipe).__name__,
        "source": getattr(pipe, "name_or_path", None) or None,
        "dtypes": {
            name: str(component.dtype)
            for name, component in modules.items()
            if hasattr(component, "dtype")
        },
        "scheduler": type(pipe.scheduler).__name__,
        "adapters": adapters,
        "quantised": quantised,
    }
    return {name: value for name, value in facts.items() if value}
