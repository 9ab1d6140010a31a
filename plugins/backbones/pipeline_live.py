"""A pipeline that the user has loaded with diffusers, in any way, as a backbone.

Its content is hashed and described where it lies: under offloading in the copies on the CPU, and of
packed tensors, such as quantised ones, in their parts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.levels import Levels
from bench.errors import UserError
from bench.inputs.altered import InMemory
from bench_plugins.backbones._driving import token_counts
from bench_plugins.backbones._parts import TORCH_DTYPES
from bench_plugins.backbones.pipeline import PipelineDenoiser

# Parts that look at pictures, of which none are made.
WITHOUT_EFFECT = ("safety_checker", "feature_extractor", "image_processor")
CHUNK_ELEMENTS = 2**26  # copied from a device at a time
# Keys of a config about where and how a part was loaded, not about the part.
OF_LOADING = ("_name_or_path", "_commit_hash", "torch_dtype", "dtype", "architectures")
VERSION_SUFFIX = "_version"  # of diffusers and transformers


class LivePipeline(PipelineDenoiser):
    """A pipeline of the user's own.

    It is not changed: its network keeps its memory layout, is not compiled, and no part is moved.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
    ) -> None:
        if training := sorted(
            name
            for name, part in pipe.components.items()
            if isinstance(part, nn.Module) and part.training and name not in WITHOUT_EFFECT
        ):
            raise UserError(
                f"The pipeline's {training[0]} is in training mode, where dropout draws at random:"
                f" call pipe.{training[0]}.eval() first."
            )
        super().__init__(pipe, resolution=resolution, normalize=normalize, call=call)
        chosen: dict[str, Any] = {"resolution": resolution, "call": call and dict(call)}
        chosen["normalize"] = None if normalize == "half" else normalize
        self._chosen = {name: value for name, value in chosen.items() if value}

    @property
    def label(self) -> str:
        """Name of the pipeline in runs: that of its source or, without one, of its class."""
        source = getattr(self.pipe, "name_or_path", None)
        return Path(source).name if source else type(self.pipe).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a run that were decided when the pipeline was handed over."""
        name = str(self.dtype).removeprefix("torch.")
        return {
            "device": str(self.device),
            "dtype": name if name in TORCH_DTYPES else "float32",  # of a quantised one
            **{name: value for name, value in self._chosen.items() if name != "call"},
        }

    def content(self) -> InMemory:
        """Return the content of the pipeline as it is now; reads every tensor."""
        described = {**describe(self.pipe), "call": self.call, "handed_over_with": self._chosen}
        described = json.loads(json.dumps(described, default=repr))
        fingerprint = content_hash(self.pipe, self.call)
        return InMemory(self.label, None, fingerprint, backbone=self, description=described)

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Refuse the name of weights in place of a pipeline."""
        if not isinstance(weights, InMemory):
            raise UserError(
                "Backbone 'pipeline' is a pipeline in memory, which only Python can hand over:"
                " bench.run(DATASET, backbone=pipe). A folder is named itself: --backbone FOLDER."
            )

    @staticmethod
    def weight_parameters(weights: InMemory, **parameters: Any) -> Mapping[str, Any]:
        """Return class, keywords of the call, and scales of the adapters."""
        described = weights.description
        return {
            name: described[name] for name in ("class", "call", "adapters") if name in described
        }

    @staticmethod
    def token_counts(weights: InMemory, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the tokens of each text, and how many the longest text encoder takes."""
        return token_counts(weights.backbone, texts)

    @staticmethod
    def level_table(weights: InMemory, **parameters: Any) -> Levels:
        """Return the noise levels of the pipeline's scheduler."""
        levels: Levels = weights.backbone.levels
        return levels

    def save_memory(self) -> bool | None:  # type: ignore[override]  # the base always can
        """Change nothing: the pipeline is the user's."""
        return False


def content_hash(pipe: Any, call: Mapping[str, Any]) -> str:
    """Return a hash, 64 hex digits, of a pipeline's parts and of how it is called.

    Parameters and buffers, whether they are stored with the model or not, with their dtypes;
    configs, adapters with their scales, attention processors, tokenizers, and the scheduler.

    Raises:
        UserError: a tensor is nowhere in memory.
    """
    digest = hashlib.sha256()
    facts: dict[str, Any] = {"class": type(pipe).__qualname__, "call": call}
    for name, part in sorted(pipe.components.items()):
        if name in WITHOUT_EFFECT or part is None:
            continue
        facts[name] = _facts(part)
        if isinstance(part, nn.Module):
            for path, tensor in _tensors(part):
                digest.update(f"{name}.{path}\0".encode())
                _add(digest, tensor, f"{name}.{path}")
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def describe(pipe: Any) -> dict[str, Any]:
    """Return a description of a pipeline for manifests; different pipelines may share it."""
    modules = {n: p for n, p in pipe.components.items() if isinstance(p, nn.Module)}
    adapters = {name: scales for name, part in modules.items() if (scales := _adapters(part))}
    quantised = {
        name: str(getattr(method, "quant_method", method))
        for name, part in modules.items()
        if (
            method := getattr(part, "hf_quantizer", None)
            or getattr(part, "quantization_config", None)
        )
    }
    facts = {
        "class": type(pipe).__name__,
        "source": getattr(pipe, "name_or_path", None) or None,
        "dtypes": {
            name: str(part.dtype) for name, part in modules.items() if hasattr(part, "dtype")
        },
        "scheduler": type(pipe.scheduler).__name__,
        "adapters": adapters,
        "quantised": quantised,
        "device_map": getattr(pipe, "hf_device_map", None),
        "offloaded": sorted(name for name, part in modules.items() if hasattr(part, "_hf_hook")),
    }
    return {name: value for name, value in facts.items() if value}


def _facts(part: Any) -> dict[str, Any]:
    """Return the facts besides its tensors that decide a part's results."""
    facts: dict[str, Any] = {"class": type(part).__qualname__}
    config = getattr(part, "config", None)
    if config is not None:
        config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        facts["config"] = {
            k: v
            for k, v in config.items()
            if k not in OF_LOADING and not k.endswith(VERSION_SUFFIX)
        }
    if isinstance(part, nn.Module):
        facts["adapters"] = _adapters(part)
        processors = getattr(part, "attn_processors", None) or {}
        facts["attention"] = {name: type(p).__qualname__ for name, p in processors.items()}
    elif hasattr(part, "get_vocab"):
        backend = getattr(part, "backend_tokenizer", None)
        facts["tokens"] = backend.to_str() if backend else sorted(part.get_vocab().items())
        facts["special"] = {k: str(v) for k, v in part.special_tokens_map.items()}
        facts["length"], facts["side"] = part.model_max_length, part.padding_side
    return facts


def _adapters(part: nn.Module) -> dict[str, Any]:
    """Return the scales of each active adapter of PEFT, and whether it is merged."""
    scales: dict[str, set[float]] = {}
    for module in part.modules():
        scaling = getattr(module, "scaling", None)
        if not isinstance(scaling, dict) or getattr(module, "disable_adapters", False):
            continue
        active = getattr(module, "active_adapters", ())
        for adapter in {*active, *getattr(module, "merged_adapters", ())} & scaling.keys():
            scales.setdefault(adapter, set()).add(float(scaling[adapter]))
    return {adapter: sorted(values) for adapter, values in sorted(scales.items())}


def _tensors(part: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer, and further tensors of quantised layers."""
    seen: set[str] = set()
    for prefix, module in part.named_modules(remove_duplicate=False):
        own = chain(module._parameters.items(), module._buffers.items())
        for name, tensor in own:
            path = f"{prefix}.{name}" if prefix else name
            if tensor is not None:
                seen.add(path)
                yield path, _in_memory(module, name, tensor, path)
    for path, tensor in part.state_dict().items():
        if path not in seen and isinstance(tensor, Tensor) and not tensor.is_meta:
            yield path, tensor


def _in_memory(module: nn.Module, name: str, tensor: Tensor, path: str) -> Tensor:
    """Return a tensor; that of an offloaded module is in the map of its hook."""
    if not tensor.is_meta:
        return tensor
    hook = getattr(module, "_hf_hook", None)
    for inner in getattr(hook, "hooks", [hook]):
        stored = getattr(inner, "weights_map", None)
        if stored is not None:
            parameter: Tensor = stored[name]
            return parameter
    raise UserError(
        f"The pipeline's {path} is nowhere in memory (its device is meta), so that its content"
        " cannot be hashed. Load the pipeline as a whole before it is handed over."
    )


def _add(digest: Any, tensor: Tensor, path: str) -> None:
    """Add a tensor's dtype, shape and bytes, or those of the parts of a packed one."""
    if hasattr(tensor, "__tensor_flatten__"):  # of torchao
        names, facts = tensor.__tensor_flatten__()
        digest.update(f"{names} {facts}".encode())
        for name in names:
            _add(digest, getattr(tensor, name), path)
        return
    tensor = tensor.detach()
    kind = getattr(tensor, "quant_type", "")
    digest.update(f"{tensor.dtype} {list(tensor.shape)} {kind}".encode())
    flat = tensor.as_subclass(Tensor).contiguous().view(-1).view(torch.uint8)
    for start in range(0, len(flat), CHUNK_ELEMENTS):
        digest.update(flat[start : start + CHUNK_ELEMENTS].cpu().numpy())
