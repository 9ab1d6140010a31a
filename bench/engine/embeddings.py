"""The prompts' conditioning, computed once and kept on disk: one file per prompt set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.engine.denoiser import CheckedDenoiser
from bench.engine.tree_files import read_tree, write_tree
from bench.engine.trees import Tree, TreeError, check_conditioning, count, joined, mapped, size
from bench.errors import UserError
from bench.machine.cache import cache_dir

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
