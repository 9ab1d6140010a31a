"""Small changes to a pipeline's folder: what damaged and hostile weights look like."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers.places import ROOT
from safetensors.torch import load_file, save_file

TINY = ROOT / "plugins/bench_plugins/backbones/weights/tiny_digits"
Damage = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], object]
Row = tuple[Damage, str]
"""What is done, and what the refusal names."""

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def copy_pipeline(source: Path, target: Path) -> Path:
    """Copy the parts of a pipeline and its index."""
    for part in PARTS:
        shutil.copytree(source / part, target / part)
    shutil.copy(source / "model_index.json", target)
    return target


def damaged(whole: Path, folder: Path, damage: Damage) -> Path:
    """Copy whole weights into a folder, and damage the copy."""
    shutil.copytree(whole, folder)
    damage(folder)
    return folder


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


def removes(name: str) -> Damage:
    """Remove a part, or a file that may not be there."""

    def apply(folder: Path) -> None:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)

    return apply


def moves(source: str, target: str) -> Damage:
    """Give a file or part another name."""
    return lambda folder: (folder / source).rename(folder / target)


def copies(source: str, target: str) -> Damage:
    """Put a copy of a file or part in the place of another."""

    def apply(folder: Path) -> None:
        if (folder / source).is_dir():
            shutil.rmtree(folder / target)
            shutil.copytree(folder / source, folder / target)
        else:
            shutil.copy(folder / source, folder / target)

    return apply


def pipes(file: str) -> Damage:
    """Put a named pipe, which nobody writes, in the place of a file."""

    def apply(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return apply


def pickles(file: str, name: str) -> Damage:
    """Store the tensors of a file as a pickle of another name instead."""

    def apply(folder: Path) -> None:
        torch.save(load_file(folder / file), (folder / file).with_name(name))
        (folder / file).unlink()

    return apply


def indexes(file: str, target: str) -> Damage:
    """Put an index in the place of a file, whose tensors then lie in `target`."""

    def apply(folder: Path) -> None:
        content = {"metadata": {}, "weight_map": dict.fromkeys(load_file(folder / file), target)}
        (folder / file).rename(folder.parent / Path(file).name)
        (folder / f"{file}.index.json").write_text(json.dumps(content))

    return apply


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


def saves(file: str, **content: torch.Tensor) -> Damage:
    """Write a file of tensors."""
    return lambda folder: save_file(content, folder / file)


def tensors(file: str, change: Change) -> Damage:
    """Change the tensors in a file."""

    def apply(folder: Path) -> None:
        content = load_file(folder / file)
        change(content)
        save_file(content, folder / file, metadata={"format": "pt"})

    return apply


def every(change: Callable[[torch.Tensor], torch.Tensor], prefix: str = "") -> Change:
    """Change each tensor whose name begins so."""
    return lambda content: content.update(
        {name: change(t) for name, t in content.items() if name.startswith(prefix)}
    )


def sets(value: float, name: str = "") -> Change:
    """Put a value into the first tensor, or the named one."""

    def apply(content: Tensors) -> None:
        content[name or sorted(content)[0]].view(-1)[0] = value

    return apply


def drops(prefix: str = "") -> Change:
    """Remove the first tensor whose name begins so."""
    return lambda content: content.pop(_first(content, prefix))


def drops_all(prefix: str) -> Change:
    """Remove every tensor whose name begins so."""
    return lambda content: [content.pop(name) for name in list(content) if name.startswith(prefix)]


def renames(prefix: str = "") -> Change:
    """Give the first tensor whose name begins so another name."""
    return lambda content: content.update(
        {f"{prefix}another.name": content.pop(_first(content, prefix))}
    )


def reshapes(prefix: str = "") -> Change:
    """Give the first tensor whose name begins so another shape."""

    def apply(content: Tensors) -> None:
        name = _first(content, prefix)
        content[name] = torch.zeros(3, *content[name].shape)

    return apply


def spoils(prefix: str = "", value: float = float("nan")) -> Change:
    """Put a value that is not finite into the first tensor of floats whose name begins so."""

    def apply(content: Tensors) -> None:
        floats = {name: t for name, t in content.items() if t.is_floating_point()}
        content[_first(floats, prefix)].view(-1)[0] = value

    return apply


def adds(name: str) -> Change:
    """Add a tensor."""
    return lambda content: content.update({name: torch.zeros(2)})


def _first(content: Tensors, prefix: str) -> str:
    return min(name for name in content if name.startswith(prefix))


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
        places = {name: part for part, chosen in parts.items() for name in chosen}
        index = {"metadata": {}, "weight_map": places}
        path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))

    return apply


def both(*damages: Damage) -> Damage:
    """Apply one after the other."""
    return lambda folder: [damage(folder) for damage in damages]
