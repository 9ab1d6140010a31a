"""One loader for every part of a pipeline: tensors are checked against the module, then read.

The libraries' own loaders differ from version to version in what they rename, and start what they
do not find at random. Here a module is given every tensor that it has, and none is left over.
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
from bench.inputs.weights import HAND_OVER, PICKLES, Weights, unread_format

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")  # as safetensors calls them; all are cast to the run's

MAPPED = 2**30  # bytes of a file that are mapped at a time
# `init_empty_weights`, here or in a library's loader, puts the parameters of all threads on the
# meta device. If two threads used it at once, it would stay in force for ever.
LOADING = RLock()


@dataclass(frozen=True)
class ModelPart:
    """A part of a pipeline that has tensors.

    Attributes:
        folder: its folder, such as `unet`.
        stem: the name of its safetensors file, without the ending.
        build: makes the module from its config.
        renamed: returns the current name of a tensor in an older file.
        unused: names of tensors in the file that the module does not need.
        tied: name of a tensor → name of the tensor of the same module that it shares.
        library: the class whose own loader is used, without a check; None: the loader here.
    """

    folder: str
    stem: str
    build: Callable[[Mapping[str, Any]], nn.Module]
    renamed: Callable[[str], str] = str
    unused: Collection[str] = ()
    tied: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    library: Any = None

    def current_name(self, name: str) -> str:
        """Return the current name of a tensor; tied tensors have one name."""
        current = self.renamed(name)
        return self.tied.get(current, current)


def diffusers_part(folder: str, model: Any, **more: Any) -> ModelPart:
    """Return a part that is a model of diffusers."""
    return ModelPart(folder, "diffusion_pytorch_model", model.from_config, **more)


def transformers_part(folder: str, model: Any, config: Any, **more: Any) -> ModelPart:
    """Return a part that is a model of transformers, built from its class of configs."""
    return ModelPart(folder, "model", lambda raw: model(config.from_dict(dict(raw))), **more)


@dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor: the file and its name in messages, the tensor's name and shape."""

    path: Path
    file: str
    name: str
    shape: tuple[int, ...]


def build_empty(weights: Weights, part: ModelPart, config: Mapping[str, Any]) -> nn.Module:
    """Return the module on torch's meta device, without memory for its tensors.

    Raises:
        UserError: its config does not describe a model.
    """
    try:
        with torch.device("meta"):
            return part.build(config).eval().requires_grad_(False)
    except Exception as error:  # whatever a library raises when a config makes no sense to it
        raise weights.error(
            f"{part.folder}/config.json", f"does not describe a model: {first_line(error)}"
        ) from error


def find_tensors(
    weights: Weights, part: ModelPart, module: nn.Module, dtype: torch.dtype
) -> dict[str, StoredTensor]:
    """Return the place of each tensor of `module`; reads only the headers of the files.

    Raises:
        UserError: there is no file, a tensor is missing or left over, or has another shape or a
            dtype that is not floating point.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in _files(weights, part, dtype):
        for stored in _header(weights, part, file):
            name = part.current_name(stored.name)
            if name in tensors and stored.name not in part.tied:
                raise weights.error(stored.file, f"holds {name!r} a second time")
            tensors[name] = stored
    state = module.state_dict()
    shapes = {part.current_name(name): tuple(tensor.shape) for name, tensor in state.items()}
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise weights.error(f"{part.folder}/", f"lacks {_some(missing)} that its config asks for")
    if left := sorted(tensors.keys() - shapes.keys()):
        raise weights.error(f"{part.folder}/", f"holds {_some(left)} that its config does not name")
    for name, stored in tensors.items():
        if stored.shape != shapes[name]:
            raise weights.error(
                stored.file,
                f"holds {stored.name!r} of shape {list(stored.shape)}; its config asks for"
                f" {list(shapes[name])}",
            )
    return {name: tensors[part.current_name(name)] for name in state}


def load(
    weights: Weights,
    part: ModelPart,
    config: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """Return the part's module with its tensors, checked and cast, for inference.

    Raises:
        UserError: see `find_tensors`; or a value is not finite.
    """
    # Parameters made in inference mode could not take part in a backward pass.
    with LOADING, torch.inference_mode(False):
        with init_empty_weights(include_buffers=False):
            module = part.build(config)
        places = find_tensors(weights, part, module, dtype)
        stored = sorted(set(places.values()), key=lambda place: (place.path, place.name))
        read = dict(_tensors(weights, stored, dtype, device))
        tensors = {name: read[places[name]] for name in places}
        module.load_state_dict(tensors, strict=True, assign=True)
        return module.to(device).eval().requires_grad_(False)


def _files(weights: Weights, part: ModelPart, dtype: torch.dtype) -> list[str]:
    variants = ("", "fp16")
    # In half precision, the smaller file is enough.
    for variant in reversed(variants) if dtype == torch.float16 else variants:
        dotted = f".{variant}" if variant else ""
        single = f"{part.folder}/{part.stem}{dotted}.safetensors"
        index = f"{part.folder}/{part.stem}.safetensors.index{dotted}.json"
        if weights.find(single):
            return [single]
        if weights.find(index):
            return _listed(weights, part, index)
    folder = Path(weights.location, part.folder)
    other = unread_format(folder.iterdir()) if folder.is_dir() else None
    raise weights.error(
        f"{part.folder}/", f"has no {part.stem}.safetensors{f'; {other}' if other else ''}"
    )


def _listed(weights: Weights, part: ModelPart, index: str) -> list[str]:
    names = weights.read(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise weights.error(index, "has no weight_map from tensors to files")
    files = set(names.values()) if all(isinstance(n, str) for n in names.values()) else {""}
    for file in sorted(files):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise weights.error(
                index, f"names {file[:100]!r}; expected a safetensors file beside it"
            )
    return [f"{part.folder}/{file}" for file in sorted(files)]


def _header(weights: Weights, part: ModelPart, file: str) -> list[StoredTensor]:
    """Return the tensors of a file from its header, without the unused ones."""
    path = weights.find(file)
    if path is None:
        raise weights.error(file, "is not there, though the index names it")
    stored = []
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                if name in part.unused:
                    continue
                tensor = opened.get_slice(name)
                if tensor.get_dtype() not in FLOAT_DTYPES:
                    raise weights.error(
                        file,
                        f"holds {name[:100]!r} as {tensor.get_dtype()};"
                        f" floating point is wanted ({', '.join(FLOAT_DTYPES)}). If the model is"
                        f" quantised, {HAND_OVER}",
                    )
                stored.append(StoredTensor(path, file, name, tuple(tensor.get_shape())))
    except (SafetensorError, OSError, ValueError) as error:
        raise weights.error(file, f"is damaged: {first_line(error)}") from None
    return stored


def _tensors(
    weights: Weights, stored: list[StoredTensor], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[StoredTensor, torch.Tensor]]:
    """Yield tensors, cast and on the device.

    A file is mapped anew after every `MAPPED` bytes, so that it is never in memory as a whole
    beside its copy.
    """
    for path, group in groupby(stored, key=lambda tensor: tensor.path):
        mapped = MAPPED
        for tensor in group:
            if mapped >= MAPPED:
                opened, mapped = safe_open(path, framework="pt"), 0
            yield tensor, _read(weights, opened, tensor, dtype).to(device)
            mapped += prod(tensor.shape) * 4  # bytes in float32, or fewer


def _read(weights: Weights, opened: Any, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    # A copy: what safetensors returns may be the file itself, mapped into memory.
    tensor: torch.Tensor = opened.get_tensor(stored.name).to(dtype, copy=True)
    if not torch.isfinite(tensor).all():
        raise weights.error(
            stored.file, f"holds values in {stored.name!r} that are not finite in {dtype}"
        )
    return tensor


def _some(names: list[str]) -> str:
    shown = " and ".join(repr(name[:100]) for name in names[:2])
    return f"tensor {shown}" if len(names) == 1 else f"{len(names)} tensors, such as {shown},"


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, shortened."""
    if isinstance(error, UserError):
        return str(error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")


# Parts of the names of a LoRA's tensors: of diffusers, PEFT, kohya and LyCORIS.
LORA_TENSORS = ("lora_", "lora.", "hada_w1", "lokr_w1", "dora_scale", "oft_blocks")
ADAPTER_NAMES = ("lora", "learned_embeds", "textual_inversion")
FEW = 8  # most tensors of a learned embedding; a model has more


def warn_of_adapters(weights: Weights, parts: Collection[str]) -> None:
    """Warn of LoRAs and learned embeddings in a folder on this machine, which are not applied."""
    if weights.revision is None and (names := sorted(_adapters(Path(weights.location), parts))):
        warn_user(
            f"The weights {weights.location} hold {' and '.join(names[:3])}"
            f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}, which look like a LoRA or"
            " a learned embedding. They are not applied: fuse them into the pipeline and save it,"
            " or take them out of the folder."
        )


def _adapters(root: Path, parts: Collection[str]) -> Iterator[str]:
    for parent, _, files in os.walk(root):
        for file in files:
            name = os.path.relpath(Path(parent, file), root)
            if file.endswith(".safetensors"):
                if is_adapter(Path(parent, file), Path(name).parts[0] in parts):
                    yield name
            elif file.endswith(PICKLES) and any(word in file.lower() for word in ADAPTER_NAMES):
                yield name


def is_lora(path: Path) -> bool:
    """Return whether a file holds a LoRA, by its header."""
    return any(word in name for name in header(path) for word in LORA_TENSORS)


def is_adapter(path: Path, in_part: bool) -> bool:
    """Return whether a file holds a LoRA or, outside the parts, a learned embedding."""
    shapes = [shape for _, shape in header(path).values()]
    few = not in_part and 0 < len(shapes) <= FEW
    return is_lora(path) or (few and all(len(shape) in (1, 2) for shape in shapes))


def header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return dtype and shape of each tensor in a file; an empty mapping if it is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {n: (tensor.get_dtype(), tensor.get_shape()) for n, tensor in slices.items()}
    except (SafetensorError, OSError):
        return {}
