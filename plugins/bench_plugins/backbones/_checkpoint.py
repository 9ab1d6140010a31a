"""Load safetensors checkpoints strictly: every tensor must exist, and none may be left over.

The libraries' own loaders rename different tensors in different versions, and initialise missing
ones at random.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn

from bench.errors import UserError, warn_user
from bench.inputs.weights import HAND_OVER, PICKLES, Weights, advise_format

# Names of dtypes in safetensors. Tensors of all of them are cast to the run's dtype.
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
INDEX_DTYPES = ("I64", "I32", "BOOL")  # of tables of positions and the like
BYTES_PER_MAPPING = 2**30
# Held while models are created. `init_empty_weights`, here or in a library's loader, patches torch
# for all threads. If two threads used it at the same time, torch would stay patched.
LOADING = RLock()


@dataclass(frozen=True)
class Component:
    """How a model that is a component of a pipeline is built and stored.

    Attributes:
        stem: the name of its safetensors file, without the suffix.
        renamed: maps the name of a tensor in an older file to its current name.
        unused: names of tensors that older files contain and the module does not have.
        tied: name of a tensor → name of the tensor of the same module with which it is tied.
        library: a class whose own `from_pretrained` is used, unless it is None.
    """

    folder: str
    stem: str
    build: Callable[[Mapping[str, Any]], nn.Module]
    renamed: Callable[[str], str] = str
    unused: Collection[str] = ()
    tied: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    library: Any = None

    def current_name(self, name: str) -> str:
        """Return the current name of a tensor. Tied tensors have the same name."""
        current = self.renamed(name)
        return self.tied.get(current, current)


def diffusers_component(folder: str, model: Any, **more: Any) -> Component:
    """Describe a component that is a model of diffusers."""
    return Component(folder, "diffusion_pytorch_model", model.from_config, **more)


def transformers_component(folder: str, model: Any, config: Any, **more: Any) -> Component:
    """Describe a component that is a model of transformers; `config` is its config class."""
    return Component(folder, "model", lambda raw: model(config.from_dict(dict(raw))), **more)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is stored."""

    path: Path
    file: str  # name of the file in messages
    name: str
    shape: tuple[int, ...]


def build_on_meta(weights: Weights, component: Component, config: Mapping[str, Any]) -> nn.Module:
    """Return the module on torch's meta device. Raises UserError if its config is invalid."""
    try:
        with torch.device("meta"):
            return component.build(config).eval().requires_grad_(False)
    except Exception as error:  # whatever a library raises for an invalid config
        raise weights.error(
            f"{component.folder}/config.json", f"does not describe a model: {first_line(error)}"
        ) from error


def find_tensors(
    weights: Weights, component: Component, module: nn.Module, dtype: torch.dtype
) -> dict[str, StoredTensor]:
    """Return where each tensor of `module` is stored. Only the headers of files are read.

    The module may be on the meta device. Raises UserError if there is no file, or a tensor is
    missing, left over, of another shape, or not floating point.
    """
    tensors: dict[str, StoredTensor] = {}
    for stored in stored_tensors(weights, component, dtype)[1]:
        name = component.current_name(stored.name)
        if name in tensors and stored.name not in component.tied:
            raise weights.error(
                stored.file, f"contains the tensor {name!r}, which another file contains too"
            )
        tensors[name] = stored
    state = module.state_dict()
    shapes = {component.current_name(name): tuple(tensor.shape) for name, tensor in state.items()}
    check_names(weights, component, shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys())
    for name, stored in tensors.items():
        if stored.shape != shapes[name]:
            raise weights.error(
                stored.file,
                f"contains {stored.name!r} of shape {list(stored.shape)}; its config requires"
                f" {list(shapes[name])}",
            )
    return {name: tensors[component.current_name(name)] for name in state}


def check_names(
    weights: Weights, component: Component, missing: Collection[str], left: Collection[str]
) -> None:
    """Raise UserError if tensors of a component are missing or left over."""
    for names, problem in (
        (missing, "lacks {} required by its config"),
        (left, "contains {} not described by its config"),
    ):
        if names:
            raise weights.error(f"{component.folder}/", problem.format(_shortened(sorted(names))))


def check_values(weights: Weights, component: str, module: nn.Module) -> None:
    """Raise UserError if a tensor of a loaded module was not loaded, or is not finite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_meta:
            raise weights.error(f"{component}/", f"lacks tensor {name!r} required by its config")
        if not torch.isfinite(tensor).all():
            raise weights.error(
                f"{component}/",
                f"contains values in {name!r} that are not finite in {tensor.dtype}",
            )


def load(
    weights: Weights,
    component: Component,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """Return the module for inference. Raises UserError if tensors do not fit or are not finite."""
    # Parameters created in inference mode could not be used in a backward pass.
    with LOADING, torch.inference_mode(False):
        with init_empty_weights(include_buffers=False):
            module = component.build(config)
        places = find_tensors(weights, component, module, dtype)
        stored = sorted(set(places.values()), key=lambda place: (place.path, place.name))
        read = dict(_tensors(weights, stored, dtype, device))
        tensors = {name: read[places[name]] for name in places}
        module.load_state_dict(tensors, strict=True, assign=True)
        return module.to(device).eval().requires_grad_(False)


def stored_tensors(
    weights: Weights, component: Component, dtype: torch.dtype
) -> tuple[str | None, list[StoredTensor]]:
    """Return the variant of the component's safetensors files, and the tensors in their headers.

    For float16, the variant `fp16` is preferred, and otherwise None, which is that of the files
    without a suffix. Raises UserError if there is no file, or one is damaged or has other dtypes.
    """
    variants = ("fp16", None) if dtype == torch.float16 else (None, "fp16")
    # Only a file that does not exist is replaced by another one.
    for variant in variants[:1] if weights.is_partial else variants:
        dotted = f".{variant}" if variant else ""
        single = f"{component.folder}/{component.stem}{dotted}.safetensors"
        index = f"{component.folder}/{component.stem}.safetensors.index{dotted}.json"
        files = [single] if weights.find(single) else []
        if not files and weights.find(index):
            files = _sharded_files(weights, component, index)
        if files:
            return variant, [t for file in files for t in _header(weights, component, file)]
    folder = Path(weights.location, component.folder)
    advice = advise_format(folder.iterdir()) if folder.is_dir() else None
    if weights.is_partial:
        advice = "the Hub was not asked which files it has: fetch them where there is a network"
    raise weights.error(
        f"{component.folder}/",
        f"has no {component.stem}.safetensors{f'; {advice}' if advice else ''}",
    )


def _sharded_files(weights: Weights, component: Component, index: str) -> list[str]:
    names = weights.read(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise weights.error(index, "has no weight_map from tensors to files")
    files = set(names.values()) if all(isinstance(n, str) for n in names.values()) else {""}
    for file in sorted(files):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise weights.error(
                index, f"names {file[:100]!r}; expected a safetensors file in the same folder"
            )
    return [f"{component.folder}/{file}" for file in sorted(files)]


def _header(weights: Weights, component: Component, file: str) -> list[StoredTensor]:
    """Return the tensors that are listed in a file's header, without the unused ones."""
    path = weights.find(file)
    if path is None:
        raise weights.error(file, "does not exist, but its index names it")
    stored = []
    dtypes = FLOAT_DTYPES if component.library is None else FLOAT_DTYPES + INDEX_DTYPES
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is not a mapping
                if name in component.unused:
                    continue
                tensor = opened.get_slice(name)
                if tensor.get_dtype() not in dtypes:
                    raise weights.error(
                        file,
                        f"contains {name[:100]!r} with dtype {tensor.get_dtype()}; expected"
                        f" {', '.join(FLOAT_DTYPES)}. If the model is quantised, {HAND_OVER}",
                    )
                stored.append(StoredTensor(path, file, name, tuple(tensor.get_shape())))
    except (SafetensorError, OSError, ValueError) as error:
        raise weights.error(file, f"is damaged: {first_line(error)}") from None
    return stored


def _tensors(
    weights: Weights, stored: list[StoredTensor], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    """Yield tensors cast to `dtype` and on the device. `stored` must be sorted by path.

    A file is mapped again after every `BYTES_PER_MAPPING`. Otherwise the whole file and its copy
    would be in memory together.
    """
    for path, group in groupby(stored, key=lambda tensor: tensor.path):
        mapped = BYTES_PER_MAPPING
        for tensor in group:
            if mapped >= BYTES_PER_MAPPING:
                opened, mapped = safe_open(path, framework="pt"), 0
            yield tensor, _read(weights, opened, tensor, dtype).to(device)
            mapped += prod(tensor.shape) * 4  # an upper bound, unless the file is in float64


def _read(weights: Weights, opened: Any, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    # A copy, because safetensors may return a view of the mapped file.
    tensor: torch.Tensor = opened.get_tensor(stored.name).to(dtype, copy=True)
    if not torch.isfinite(tensor).all():
        raise weights.error(
            stored.file, f"contains values in {stored.name!r} that are not finite in {dtype}"
        )
    return tensor


def _shortened(names: list[str]) -> str:
    first = " and ".join(repr(name[:100]) for name in names[:2])
    return f"tensor {first}" if len(names) == 1 else f"{len(names)} tensors, such as {first},"


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, shortened, or all of a message of ours."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")


# Substrings of tensor names in the LoRA formats of diffusers, PEFT, kohya and LyCORIS.
LORA_TENSORS = ("lora_", "lora.", "hada_w1", "lokr_w1", "dora_scale", "oft_blocks")
ADAPTER_NAMES = ("lora", "learned_embeds", "textual_inversion")  # substrings of file names
MAX_EMBEDDING_TENSORS = 8  # in a file with a learned embedding; a model has more


def warn_of_adapters(weights: Weights, components: Collection[str]) -> None:
    """Warn about LoRAs and learned embeddings (textual inversion), which are not applied.

    Only a local folder is searched. `components` are the names of its components' folders.
    """
    if weights.revision is None and (
        names := sorted(_adapters(Path(weights.location), components))
    ):
        warn_user(
            f"The weights {weights.location} contain {' and '.join(names[:3])}"
            f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}, which look like a LoRA or"
            " a learned embedding. They are not applied: fuse them into the pipeline and save it,"
            " or remove them from the folder."
        )


def _adapters(root: Path, components: Collection[str]) -> Iterator[str]:
    for parent, _, files in os.walk(root):
        for file in files:
            name = os.path.relpath(Path(parent, file), root)
            if file.endswith(".safetensors"):
                if is_adapter(Path(parent, file), Path(name).parts[0] in components):
                    yield name
            elif file.endswith(PICKLES) and any(word in file.lower() for word in ADAPTER_NAMES):
                yield name


def is_lora(path: Path) -> bool:
    """Return whether a file contains a LoRA, judged by its header."""
    return any(word in name for name in header(path) for word in LORA_TENSORS)


def is_adapter(path: Path, in_component: bool) -> bool:
    """Return whether a file contains a LoRA or a learned embedding, judged by its header.

    A file in a component's folder (`in_component`) is never taken for a learned embedding.
    """
    shapes = [shape for _, shape in header(path).values()]
    is_small = not in_component and 0 < len(shapes) <= MAX_EMBEDDING_TENSORS
    return is_lora(path) or (is_small and all(len(shape) in (1, 2) for shape in shapes))


def header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return the dtype and shape of each tensor in a file; empty if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {n: (tensor.get_dtype(), tensor.get_shape()) for n, tensor in slices.items()}
    except (SafetensorError, OSError):
        return {}
