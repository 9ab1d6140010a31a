"""Small changes to a pipeline's folder: what damaged and hostile weights look like."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def copy_pipeline(source: Path, target: Path) -> Path:
    """Copy the parts of a pipeline."""
    for part in PARTS:
        shutil.copytree(source / part, target / part)
    return target


def says(file: str, **values: Any) -> Damage:
    """Set values in a JSON file; `...` removes a key."""

    def apply(folder: Path) -> None:
        path = folder / file
        content = {**json.loads(path.read_text()), **values}
        kept = {key: value for key, value in content.items() if value is not ...}
        path.write_text(json.dumps(kept))

    return apply


def writes(file: str, content: str | bytes) -> Damage:
    """Replace a file, or make one."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / file).write_bytes(data)


def removes(file: str) -> Damage:
    """Remove a file."""
    return lambda folder: (folder / file).unlink()


def truncates(file: str) -> Damage:
    """Cut a file in the middle."""

    def apply(folder: Path) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: len(data) // 2])

    return apply


def links(file: str, target: str) -> Damage:
    """Put a link in the place of a file or folder, which is moved beside the pipeline."""

    def apply(folder: Path) -> None:
        path = folder / file
        if path.exists():
            path.rename(folder.parent / path.name)
        path.symlink_to(target)

    return apply


def tensors(file: str, change: Callable[[Tensors], object]) -> Damage:
    """Change the tensors in a file."""

    def apply(folder: Path) -> None:
        content = load_file(folder / file)
        change(content)
        save_file(content, folder / file, metadata={"format": "pt"})

    return apply


def every(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], object]:
    """Change each tensor."""
    return lambda content: content.update({name: change(t) for name, t in content.items()})


def sets(value: float, name: str = "") -> Callable[[Tensors], object]:
    """Put a value into the first tensor, or the named one."""

    def apply(content: Tensors) -> None:
        content[name or sorted(content)[0]].view(-1)[0] = value

    return apply


def shards(file: str) -> Damage:
    """Cut a safetensors file into two, with an index."""

    def apply(folder: Path) -> None:
        path = folder / file
        content = load_file(path)
        names = sorted(content)
        parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
        for part, chosen in parts.items():
            save_file({name: content[name] for name in chosen}, path.with_name(part))
        path.unlink()
        index = {"weight_map": {name: part for part, chosen in parts.items() for name in chosen}}
        path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))

    return apply


def both(*damages: Damage) -> Damage:
    """Apply one after the other."""
    return lambda folder: [damage(folder) for damage in damages]
