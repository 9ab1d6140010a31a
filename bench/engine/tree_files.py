"""A prompt set's conditioning on disk: one safetensors file, written as it is made, read lazily.

Written chunk by chunk, so that no second copy of a large conditioning is ever in memory; read by
mapping the file, so that only the rows in use need memory that cannot be given back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from bench.engine.trees import Tree, check_alike, grown, leaves
from bench.machine.cache import is_kept, keeping

ROOT = "conditioning"  # the name of a tree that is a single tensor
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tree(path: Path, chunks: Iterable[Tree], prompts: int) -> None:
    """Write the conditioning of so many prompts, which comes in chunks, in order.

    Raises:
        OSError: the disk does not take it.
        UserError: the chunks do not fit together.
    """
    with keeping(path) as file:
        starts: dict[str, int] = {}
        first: dict[str, torch.Tensor] = {}
        done = 0
        for chunk in chunks:
            found = leaves(chunk)
            if not first:
                # Rows of no prompt keep names, dtypes and lengths, and no memory.
                first = {name: leaf[:0].cpu() for name, leaf in found.items()}
                header, starts = _header(found, prompts)
                file.write(header)
            check_alike(first, found)
            for name, leaf in found.items():
                data = leaf.detach().contiguous().cpu()
                file.seek(starts[name] + done * _row_bytes(leaf))
                file.write(data.flatten().view(torch.uint8).numpy().data)
            done += len(next(iter(found.values())))


def read_tree(path: Path) -> Tree | None:
    """Return a conditioning, mapped from its file; None where there is none, or it is damaged."""
    if not is_kept(path, always=True):
        return None
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
        found = load_file(path)
    except (OSError, SafetensorError):
        return None
    return grown({"" if name == ROOT else name: found[name] for name in names})


def _row_bytes(leaf: torch.Tensor) -> int:
    return leaf[0].numel() * leaf.element_size()


def _header(found: dict[str, torch.Tensor], prompts: int) -> tuple[bytes, dict[str, int]]:
    """Return the file's head and where each leaf's data starts in the file."""
    entries, offset = {}, 0
    # Wide elements first, so that each leaf is aligned.
    for name, leaf in sorted(found.items(), key=lambda item: -item[1].element_size()):
        length = prompts * _row_bytes(leaf)
        entries[name or ROOT] = {
            "dtype": DTYPES[leaf.dtype],
            "shape": [prompts, *leaf.shape[1:]],
            "data_offsets": [offset, offset + length],
        }
        offset += length
    text = json.dumps(entries).encode()
    text += b" " * (-(len(text) + 8) % 8)
    starts = {name: 8 + len(text) + entries[name or ROOT]["data_offsets"][0] for name in found}
    return len(text).to_bytes(8, "little") + text, starts
