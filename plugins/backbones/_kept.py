"""Embeddings on disk, by what they are of: an image's pixels, or a text. One file per weights."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.machine.cache import cache_dir

FORMAT = 1
LIBRARIES = ("torch", "transformers", "tokenizers", "pillow")  # they compute an embedding
AT_ONCE = 500  # keys of a query
PATIENCE = 20.0  # seconds to wait for another process that writes

Rows = NDArray[np.float32]


class Kept:
    """Rows of numbers that were computed before; a disk that does not take them stops nothing.

    Args:
        what: everything that decides a row besides its key: weights, dtype, version.
    """

    def __init__(self, what: str) -> None:
        libraries = [f"{name} {version(name)}" for name in LIBRARIES]
        content = json.dumps([FORMAT, libraries, what])
        self._name = f"{hashlib.sha256(content.encode()).hexdigest()}.sqlite"

    def rows(
        self, keys: Sequence[bytes], width: int, make: Callable[[Sequence[int]], Rows]
    ) -> Rows:
        """Return a row per key, float32 [n, width]; what is not known is made, and kept.

        Args:
            keys: of the rows.
            width: of a row.
            make: computes the rows at some places of `keys`.
        """
        known = self._read(set(keys), width)
        places = {key: place for place, key in enumerate(keys) if key not in known}
        if places:
            made = np.ascontiguousarray(make(list(places.values())), np.float32)
            new = dict(zip(places, made, strict=True))
            self._write(new)
            known.update(new)
        return np.stack([known[key] for key in keys])

    def _read(self, keys: set[bytes], width: int) -> dict[bytes, Rows]:
        found: dict[bytes, Rows] = {}
        with suppress(sqlite3.Error, OSError), self._open() as file:
            wanted = sorted(keys)
            for start in range(0, len(wanted), AT_ONCE):
                some = wanted[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, row FROM rows WHERE key IN ({marks})"
                for key, row in file.execute(query, some):
                    values = np.frombuffer(row, np.float32) if len(row) == 4 * width else None
                    if values is not None and np.isfinite(values).all():
                        found[key] = values
        return found

    def _write(self, new: dict[bytes, Rows]) -> None:
        with suppress(sqlite3.Error, OSError), self._open() as file, file:
            file.executemany(
                "INSERT OR REPLACE INTO rows VALUES (?, ?)",
                [(key, row.tobytes()) for key, row in new.items()],
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        path: Path = cache_dir("features") / self._name
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as file:
            file.execute("PRAGMA synchronous = OFF")  # what is lost is made again
            file.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, row BLOB)")
            yield file


def image_key(image: Image.Image) -> bytes:
    """Return a key of a picture's pixels in RGB."""
    picture = image.convert("RGB")
    head = f"image {picture.width} {picture.height} ".encode()
    return hashlib.blake2b(head + picture.tobytes(), digest_size=20).digest()


def text_key(text: str) -> bytes:
    """Return a key of a text."""
    return hashlib.blake2b(f"text {text}".encode(), digest_size=20).digest()
