"""The files of a weights folder: their hash, and the content of their JSON.

Only regular files inside the folder are opened, and no folder in it may be a link: its files would
not be in the hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.cache import cache_dir, file_digest, keep, recall, stamp
from bench.machine.files import read_text, regular_file

COUNTED = {".safetensors", ".json", ".txt", ".model"}  # all that is read has one of these endings
MOST_FILES = 20_000  # of the folder of one model
LARGEST_JSON = 100_000_000  # bytes; the largest tokenizers have some ten million
LARGE_FILE = 50_000_000  # bytes above which a hash is remembered


def find_file(folder: Path, name: str) -> Path | None:
    """Return the regular file `name` of a weights folder, links resolved; None if it is not there.

    `folder` is absolute, its links resolved; `name` is relative, such as `unet/config.json`.

    Raises:
        UserError: it is something else, or leads out of the folder.
    """
    parent = (folder / name).parent
    if Path(os.path.realpath(parent)) != parent:
        raise UserError(
            f"The weights folder {folder}: the folder of {name} is a link or lies outside."
            " Put a copy in its place."
        )
    try:
        return regular_file(folder, name)
    except UserError as error:
        raise UserError(f"The weights file {error}") from None


def fingerprint(folder: Path) -> str:
    """Return the hash of a weights folder's files: their names and contents.

    Raises:
        UserError: there are none, or one of them may not be read.
    """
    lines = []
    for path in sorted(_counted(folder)):
        name = path.relative_to(folder)
        real = find_file(folder, str(name))
        if real is None:
            raise UserError(f"The weights folder {folder}: {name} disappeared meanwhile.")
        lines.append(f"{name} {_file_hash(path, real)}")
    if not lines:
        raise UserError(f"The weights folder {folder} holds no safetensors and no configuration.")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _counted(folder: Path) -> Iterator[Path]:
    seen = 0
    for parent, _, files in os.walk(folder):
        seen += len(files)
        if seen > MOST_FILES:
            raise UserError(
                f"The weights folder {folder} holds more than {MOST_FILES:,} files."
                " Name the folder of one model."
            )
        yield from (path for name in files if (path := Path(parent, name)).suffix in COUNTED)


def _file_hash(path: Path, real: Path) -> str:
    """Hash a file; gigabytes of weights are read again only when the file has changed."""
    try:
        if real.stat().st_size <= LARGE_FILE:
            return file_digest(real)
        state = f"{path} {stamp(real)}".encode(errors="surrogateescape")
        memo = cache_dir("hashes") / f"{hashlib.sha256(state).hexdigest()}.bin"
        if remembered := recall(memo):
            return remembered.decode("ascii", "replace")
        digest = file_digest(real)
    except OSError as error:
        raise UserError(
            f"The weights file {path} cannot be read: {error.strerror or error}."
        ) from None
    keep(memo, digest)
    return digest


def read_object(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a regular file; `name` is its name in messages.

    Raises:
        UserError: there is no such object in it.
    """
    try:
        content = json.loads(read_text(path, LARGEST_JSON))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not valid JSON: {str(error)[:100]}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} holds a {type(content).__name__} instead of a JSON object.")
    return content
