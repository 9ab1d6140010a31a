"""Use a diffusers pipeline object that the user has loaded as a backbone.

All of its weights are hashed to identify it in a run. Weights that are offloaded are read from
their copies on the CPU, and packed tensors, such as quantised ones, as the tensors inside them.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from bench.contracts.levels import Levels
from bench.errors import UserError
from bench.inputs.weights import InMemory
from bench.machine.libraries.private_accelerate import hooks_of
from bench.machine.libraries.private_torch import own_tensors
from bench_plugins.backbones._components import TORCH_DTYPES
from bench_plugins.backbones._gate import check_unaltered, is_replaced, modules_of
from bench_plugins.backbones._learning import facts_file
from bench_plugins.backbones._runner import token_counts
from bench_plugins.backbones.pipeline import PipelineDenoiser

# Components that process generated images. None are generated here.
UNUSED_COMPONENTS = ("safety_checker", "feature_extractor", "image_processor")
# Parts of a description that are no parameters of a run.
DESCRIPTIVE = ("source", "dtypes", "scheduler", "quantised", "handed_over_with")
# Attention processors of diffusers that compute the same, one with less memory than another.
SAME_ATTENTION = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor")
CHUNK_BYTES = 2**26  # copied from a device at a time
# Config keys that depend on where and how a component was loaded, and so are not hashed.
LOADING_KEYS = ("_name_or_path", "_commit_hash", "torch_dtype", "dtype", "architectures")
VERSION_SUFFIX = "_version"  # key with the version of diffusers or transformers; not hashed


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
        check_live(pipe, modules_of(pipe))
        facts = [_facts(component) for component in pipe.components.values()]
        state = str([facts, pipe.config, vars(pipe.scheduler)])
        if state != self._learned_of:
            super().__init__(pipe, **self._chosen)
            self._learned_of = state

    @property
    @override
    def settings(self) -> dict[str, Any]:
        chosen = {name: value for name, value in self._chosen.items() if name != "call"}
        return {**super().settings, **chosen}

    def content(self) -> InMemory:
        """Describe and hash the pipeline in its present state. Every tensor is read."""
        self._inspect()
        described = {**describe(self.pipe), "call": self.call, "handed_over_with": self._chosen}
        described = json.loads(json.dumps(described, default=repr))
        used = {
            name: component
            for name, component in self.pipe.components.items()
            if not (name in UNUSED_COMPONENTS or component in (None, self.pipe.scheduler))
        }
        facts = {"class": type(self.pipe).__qualname__, "call": self.call, **_values(self.pipe)}
        fingerprint = content_hash(used, facts, self.levels)
        with torch.no_grad():
            shortest = replace(self.runner, device_override=self.device).shortest.values()
        sums = [leaf.double().sum(-1).tolist() for leaf in shortest]
        self._encoded = f"{sums} {getattr(self.pipe, 'labels', None)}"
        self.facts_path = facts_file(fingerprint, str(self.device), self._chosen)
        return InMemory(self.label, None, fingerprint, backbone=self, description=described)

    @staticmethod
    @override
    def encoder_key(weights: InMemory, **parameters: Any) -> str:
        """Return the key of the weights and of what the pipeline's own code makes of a text."""
        return f"{weights.fingerprint} {weights.backbone._encoded}"

    @staticmethod
    @override
    def token_counts(weights: InMemory, texts: Sequence[str]) -> tuple[list[int], int] | None:
        return token_counts(weights.backbone.pipe, weights.backbone.call, texts)

    @staticmethod
    @override
    def level_table(weights: InMemory, **parameters: Any) -> Levels:
        levels: Levels = weights.backbone.levels
        return levels

    def save_memory(self) -> bool | None:
        """Return False, because the user's pipeline must not be changed."""
        return False


def check_live(pipe: Any, modules: Mapping[str, nn.Module]) -> None:
    """Raise UserError if one of a pipeline's modules is in training mode or altered by a hook."""
    who = f"The pipeline {type(pipe).__name__}"
    for name, module in sorted(modules.items()):
        if module.training and name not in UNUSED_COMPONENTS:
            raise UserError(
                f"The pipeline's {name} is in training mode, which makes dropout random: call"
                f" pipe.{name}.eval() first."
            )
    check_unaltered(modules, who)
    for name, method in vars(pipe).items():
        if is_replaced(pipe, name, method):
            raise UserError(f"{who} cannot be used: its {name} is replaced. Remove it first.")


def content_hash(
    components: Mapping[str, Any], facts: Mapping[str, Any], levels: Levels | None = None
) -> str:
    """Return a SHA-256 hash, 64 hex digits, of components and of what else determines results.

    It covers what is used: all parameters and buffers with their dtypes, but those of adapters that
    are off; configs, active adapters with their scales, attention processors, tokenizers, and the
    noise levels in place of the scheduler. Every tensor must be in memory.
    """
    digest, facts = hashlib.sha256(), dict(facts)
    for name, component in sorted(components.items()):
        facts[name] = _facts(component)
        if isinstance(component, nn.Module):
            unused = _adapters(component)[1]
            for path, tensor in _tensors(component):
                if not any(f".{adapter}." in path and ".lora_" in path for adapter in unused):
                    path = path.replace(".base_layer.", ".")  # its name below a LoRA
                    digest.update(f"{name}.{path}\0".encode())
                    _add(digest, tensor, f"{name}.{path}")
    for column in (levels.alpha, levels.sigma, levels.p, levels.q, levels.time) if levels else ():
        digest.update(str(column.dtype).encode() + column.tobytes())
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def describe(pipe: Any) -> dict[str, Any]:
    """Return a description of a pipeline for manifests. It does not identify the pipeline."""
    modules = modules_of(pipe)
    adapters = {
        name: scales for name, component in modules.items() if (scales := _adapters(component)[0])
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


def _values(pipe: Any) -> dict[str, Any]:
    """Return the values in a pipeline's config that are not the defaults of its class."""
    parameters = inspect.signature(type(pipe).__init__).parameters
    return {
        name: value
        for name, value in pipe.config.items()
        if name in parameters.keys() - pipe.components.keys() - {"requires_safety_checker"}
        and value != parameters[name].default
    }


def _facts(component: Any) -> dict[str, Any]:
    """Return what determines a component's results in addition to its tensors."""
    facts: dict[str, Any] = {"class": type(component).__qualname__}
    config = getattr(component, "config", None)
    if config is not None:
        config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        facts["config"] = {
            k: v
            for k, v in config.items()
            if k not in LOADING_KEYS and not k.endswith(VERSION_SUFFIX)
        }
    if isinstance(component, nn.Module):
        facts["adapters"] = _adapters(component)[0]
        processors = getattr(component, "attn_processors", None) or {}
        facts["attention"] = {
            name: f"{type(own).__qualname__}{_numbers(own) or ''}"
            for name, own in processors.items()
            if type(own).__qualname__ not in SAME_ATTENTION
        }
    elif hasattr(component, "get_vocab"):
        backend = getattr(component, "backend_tokenizer", None)
        facts["tokens"] = backend.to_str() if backend else sorted(component.get_vocab().items())
        facts["special"] = {k: str(v) for k, v in component.special_tokens_map.items()}
        facts["length"], facts["side"] = component.model_max_length, component.padding_side
    return facts


def _numbers(processor: object) -> dict[str, float]:
    return {name: value for name, value in vars(processor).items() if type(value) in (int, float)}


def _adapters(component: nn.Module) -> tuple[dict[str, Any], set[str]]:
    """Return the distinct scales of each PEFT adapter that is active or merged, and the others."""
    scales: dict[str, set[float]] = {}
    names: set[str] = set()
    for module in component.modules():
        if not isinstance(scaling := getattr(module, "scaling", None), dict):
            continue
        names |= scaling.keys()
        active = {*getattr(module, "active_adapters", ()), *getattr(module, "merged_adapters", ())}
        for adapter in (
            () if getattr(module, "disable_adapters", False) else active & scaling.keys()
        ):
            scales.setdefault(adapter, set()).add(float(scaling[adapter]))
    return {n: sorted(values) for n, values in sorted(scales.items())}, names - scales.keys()


def _tensors(component: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer by name, then further tensors of quantised layers."""
    yielded: set[str] = set()
    for prefix, module in component.named_modules(remove_duplicate=False):
        for name, tensor in own_tensors(module):
            path = f"{prefix}.{name}" if prefix else name
            if tensor is not None:
                yielded.add(path)
                yield path, _in_memory(module, name, tensor, path)
    for path, tensor in component.state_dict().items():
        if path not in yielded and isinstance(tensor, Tensor) and not tensor.is_meta:
            yield path, tensor


def _in_memory(module: nn.Module, name: str, tensor: Tensor, path: str) -> Tensor:
    """Return a tensor. That of an offloaded module is stored in its hook."""
    if not tensor.is_meta:
        return tensor
    for hook in hooks_of(module):
        stored = getattr(hook, "weights_map", None)
        if stored is not None:
            parameter: Tensor = stored[name]
            return parameter
    raise UserError(
        f"The pipeline's {path} is not in memory (its device is meta), so it cannot be hashed. Load"
        " all weights of the pipeline before you pass it."
    )


def _add(digest: Any, tensor: Tensor, path: str) -> None:
    """Add a tensor's dtype, shape and bytes to a hash; for a packed one, of the tensors inside."""
    if hasattr(tensor, "__tensor_flatten__"):  # packed by torchao
        names, facts = tensor.__tensor_flatten__()
        digest.update(f"{names} {facts}".encode())
        for name in names:
            _add(digest, getattr(tensor, name), path)
        return
    tensor = tensor.detach()
    kind = getattr(tensor, "quant_type", "")
    digest.update(f"{tensor.dtype} {list(tensor.shape)} {kind}".encode())
    flat = tensor.as_subclass(Tensor).contiguous().view(-1).view(torch.uint8)
    for start in range(0, len(flat), CHUNK_BYTES):
        digest.update(flat[start : start + CHUNK_BYTES].cpu().numpy())
