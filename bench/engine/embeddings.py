"""The conditioning of prompts, computed once and kept on disk: one safetensors file per prompt set.

A file is written chunk by chunk, so that no second copy of a large conditioning is in memory, and
read by mapping it, so that only the rows in use need memory that cannot be given back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from bench.engine.denoiser import CheckedDenoiser
from bench.engine.trees import (
    Tree,
    TreeError,
    check_alike,
    check_conditioning,
    count,
    grown,
    joined,
    leaves,
    mapped,
    size,
)
from bench.errors import UserError
from bench.machine.cache import cache_dir, is_kept, keeping

FORMAT = 4  # 1 kept what was not checked, 2 a file for each prompt, 3 no hash
LIBRARIES = ("torch", "transformers", "tokenizers")  # they compute an embedding
IN_MEMORY = 256 * 2**20  # bytes up to which a conditioning is read, and not mapped from its file


def embed_prompts(
    backbone: CheckedDenoiser, key: str, texts: Sequence[str], with_null: bool = False
) -> Tree:
    """Return the conditioning of `texts` on the host; a large one is mapped from its file.

    It is looked up in the cache first, so a backbone that loads its text encoder on demand may
    never load it. Two processes may do this at once: a file appears whole, and both write the same.

    Args:
        backbone: encodes what is missing; what it loads for that, it has checked.
        key: everything that decides a conditioning besides its text and the libraries: the
            fingerprint of the weights (of text encoder and tokenizer at least), dtype, version.
        texts: the prompts.
        with_null: whether the null conditioning is the last row.

    Raises:
        UserError: one is not finite, or prompts are not padded to the same lengths.
    """

    def encoded() -> Iterator[Tree]:
        yield from _encoded(backbone, texts)
        if with_null:
            yield _checked(backbone.encode_null(), ["the null"])

    return _kept(prompts_file(key, texts, with_null), encoded, len(texts) + with_null)


def embed_null(backbone: CheckedDenoiser, key: str) -> Tree:
    """Return the null conditioning, one row, on the host; kept like the prompts'."""

    def encoded() -> Iterator[Tree]:
        yield _checked(backbone.encode_null(), ["the null"])

    return _kept(null_file(key), encoded, 1)


def prompts_file(key: str, texts: Sequence[str], with_null: bool = False) -> Path:
    """Return the file of a prompt set's conditioning, which need not be there."""
    return _path(f"{key} and the null" if with_null else key, list(texts))


def null_file(key: str) -> Path:
    """Return the file of the null conditioning, which need not be there."""
    return _path(key, None)


def _kept(path: Path, encode: Callable[[], Iterator[Tree]], prompts: int) -> Tree:
    found = read_tree(path)
    if found is None or count(found) != prompts:
        try:
            with suppress(OSError):  # a disk that does not take it must not stop a run
                write_tree(path, encode(), prompts)
            found = read_tree(path)
            if found is None:
                found = mapped(lambda leaf: leaf.cpu(), joined(list(encode())))
        except TreeError as error:
            raise UserError(str(error)) from None
    return mapped(torch.clone, found) if size(found) <= IN_MEMORY else found


def _encoded(backbone: CheckedDenoiser, texts: Sequence[str]) -> Iterator[Tree]:
    size = backbone.prompts_at_once
    for start in range(0, len(texts), size):
        batch = list(texts[start : start + size])
        yield _checked(backbone.encode_prompts(batch), batch)


def _checked(conditioning: Tree, texts: Sequence[str]) -> Tree:
    try:
        check_conditioning(conditioning, texts)
    except TreeError as error:
        raise UserError(str(error)) from None
    return conditioning


def _path(key: str, texts: list[str] | None) -> Path:
    content = json.dumps([FORMAT, _libraries(), key, texts])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return cache_dir("embeddings", digest[:2]) / f"{digest}.safetensors"


@cache
def _libraries() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # a backbone need not use it
            found.append(f"no {name}")
    return ", ".join(found)


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
