"""The files of a weights folder: which may be opened, which are counted, and what a JSON holds.

Only regular files inside the folder are opened, and no folder in it may be a link: its files would
not be counted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.machine.cache import cache_dir, keep, recall
from bench.machine.files import open_regular, read_text, regular_file

COUNTED = {".safetensors", ".json", ".txt", ".model"}  # all that is read has one of these endings
MOST_FILES = 20_000  # a folder with more is not that of one model
LARGEST_JSON = 100_000_000  # bytes; the largest tokenizers have some ten million
LARGE = 50_000_000  # bytes from which on a hash is remembered


def find_file(folder: Path, name: str) -> Path | None:
    """Return the regular file `name` of a weights folder, links resolved; None if it is not there.

    Args:
        folder: absolute, links resolved.
        name: relative, such as `unet/config.json`.

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
        facts = real.stat()
        # The time of the last change of any kind: nobody sets it back.
        stamp = f"{path} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
        key = hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest()
        memo = cache_dir("hashes") / f"{key}.bin" if facts.st_size > LARGE else None
        if memo and (known := recall(memo)):
            return known.decode("ascii", "replace")
        with open_regular(real) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"The weights file {path} cannot be read: {error.strerror or error}."
        ) from None
    if memo:
        keep(memo, digest)
    return digest


def read_object(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: a regular file.
        name: what messages call it.

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
