"""Hash what an object in memory computes with: its tensors, its config, and what was altered.

Weights that are offloaded are read from their copies on the CPU, and packed tensors, such as
quantised ones, as the tensors inside them.
"""

import dis
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.levels import Levels
from bench.errors import UserError
from bench.machine.libraries import private_peft
from bench.machine.libraries.private_accelerate import hooks_of
from bench.machine.libraries.private_diffusers import OFFLOADING, PROGRESS_BAR_CONFIG
from bench.machine.libraries.private_torch import own_tensors, unwrapped
from bench_plugins.backbones._weights.twin import (
    ALIKE,
    AlteredError,
    alterations,
    check_class,
    fresh,
    fresh_pipeline,
    process_alterations,
)

COPIED_BYTES = 2**26  # copied from a device at a time
# Config keys that depend on where and how a component was loaded, and so are not hashed.
LOADING_KEYS = (
    *("_name_or_path", "_commit_hash", "torch_dtype", "dtype", "architectures"),
    "_use_default_values",  # in an order that differs between processes
)
OF_PIPELINES = {*OFFLOADING, PROGRESS_BAR_CONFIG}  # attributes that change no number
VERSION_SUFFIX = "_version"  # key with the version of diffusers or transformers; not hashed


def altered_parts(components: Mapping[str, Any], pipe: Any = None) -> dict[str, Any]:
    """Return path → value of all that was altered after components and their pipeline were made.

    Values are plain. It is empty for what a library loaded and nobody changed. Raises AlteredError
    if a value cannot be written down.
    """
    altered = process_alterations()
    for name, component in sorted(components.items()):
        if isinstance(component, nn.Module):
            altered |= alterations(component, fresh(unwrapped(component)), name)
        else:
            check_class(name, type(component), set())
            _check_methods(component, name)
    if pipe is not None:
        set_by_call = {
            step.argval
            for step in dis.get_instructions(inspect.unwrap(type(pipe).__call__))
            if step.opname == "STORE_ATTR"
        }
        _check_methods(pipe, "pipe")
        alike = ALIKE | pipe.components.keys() | set_by_call | OF_PIPELINES
        altered |= alterations(pipe, fresh_pipeline(pipe), "pipe", alike)
    return altered


def _check_methods(owner: Any, name: str) -> None:
    for attribute, method in getattr(owner, "__dict__", {}).items():
        own = getattr(type(owner), attribute, None)
        is_own = getattr(method, "__func__", None) is own
        if callable(own) and callable(method) and not is_own:
            raise AlteredError(f"{name}.{attribute}", f"{method!r:.60}")


def content_hash(
    components: Mapping[str, Any],
    facts: Mapping[str, Any],
    altered: Mapping[str, Any],
    levels: Levels | None = None,
) -> str:
    """Return a SHA-256 hash, 64 hex digits, of components and of what else determines results.

    It covers what is used: all parameters and buffers with their dtypes, but those of adapters that
    are off; configs, active adapters with their scales, attention processors, tokenizers, what
    `altered_parts` returns, and the noise levels in place of the scheduler. Every tensor must be in
    memory.
    """
    digest, facts = hashlib.sha256(), {**facts, **({"altered": altered} if altered else {})}
    for name, component in sorted(components.items()):
        component = unwrapped(component)
        facts[name] = component_facts(component)
        if isinstance(component, nn.Module):
            states = private_peft.states(component)
            off = {(own.path, own.adapter) for own in states if own.state == "off"}
            for path, tensor in _tensors(component):
                if not private_peft.is_off(path, off):
                    # Its name without what is around layers: LoRAs and compiled code.
                    path = path.replace(".base_layer.", ".").replace("._orig_mod.", ".")
                    digest.update(f"{name}.{path}\0".encode())
                    _add(digest, tensor, f"{name}.{path}")
    for column in (levels.alpha, levels.sigma, levels.p, levels.q, levels.time) if levels else ():
        digest.update(str(column.dtype).encode() + column.tobytes())
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def own_values(pipe: Any) -> dict[str, Any]:
    """Return the values in a pipeline's config that are not the defaults of its class."""
    parameters = inspect.signature(type(pipe).__init__).parameters
    return {
        name: value
        for name, value in pipe.config.items()
        if name in parameters.keys() - pipe.components.keys() - {"requires_safety_checker"}
        and value != parameters[name].default
    }


def component_facts(component: Any) -> dict[str, Any]:
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
        facts["adapters"] = adapter_scales(component)
        facts["attention"] = {}  # other processors than the usual ones are among what is altered
    elif hasattr(component, "get_vocab"):
        backend = getattr(component, "backend_tokenizer", None)
        facts["tokens"] = backend.to_str() if backend else sorted(component.get_vocab().items())
        facts["special"] = {k: str(v) for k, v in component.special_tokens_map.items()}
        facts["length"], facts["side"] = component.model_max_length, component.padding_side
    return facts


def adapter_scales(component: nn.Module) -> dict[str, list[float]]:
    """Return the distinct scales of each adapter that is active or merged."""
    scales: dict[str, set[float]] = {}
    for own in private_peft.states(component):
        if own.state in ("active", "merged") and own.scale is not None:
            scales.setdefault(own.adapter, set()).add(own.scale)
    return {name: sorted(values) for name, values in sorted(scales.items())}


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
    for start in range(0, len(flat), COPIED_BYTES):
        digest.update(flat[start : start + COPIED_BYTES].cpu().numpy())
