"""A cache of embeddings on disk, by the pixels of an image or by a text; one file per weights."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.machine.cache import cache_dir, discard_damaged

KEPT_FORMAT = 2  # 1 had no hashes
EMBEDDING_LIBRARIES = ("torch", "transformers", "tokenizers", "pillow")  # they compute an embedding
KEYS_PER_QUERY = 500
LOCK_SECONDS = 20.0  # seconds to wait for another process that writes

Rows = NDArray[np.float32]


class Kept:
    """Rows of numbers that were computed before. A disk that does not take them stops nothing."""

    def __init__(self, what: str) -> None:
        libraries = [f"{name} {version(name)}" for name in EMBEDDING_LIBRARIES]
        content = json.dumps([KEPT_FORMAT, libraries, what])
        self._name = f"{hashlib.sha256(content.encode()).hexdigest()}.sqlite"

    def rows(
        self, keys: Sequence[bytes], width: int, make: Callable[[Sequence[int]], Rows]
    ) -> Rows:
        """Return a row per key, float32 [n, width]; `make` gets the places of new keys."""
        stored = self._read(set(keys), width)
        places = {key: place for place, key in enumerate(keys) if key not in stored}
        if places:
            made = np.ascontiguousarray(make(list(places.values())), np.float32)
            new = dict(zip(places, made, strict=True))
            self._write(new)
            stored.update(new)
        return np.stack([stored[key] for key in keys])

    def _read(self, keys: set[bytes], width: int) -> dict[bytes, Rows]:
        stored: dict[bytes, Rows] = {}
        wanted = sorted(keys)

        def read(file: sqlite3.Connection) -> None:
            for start in range(0, len(wanted), KEYS_PER_QUERY):
                some = wanted[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, row, hash FROM rows WHERE key IN ({marks})"
                for key, row, digest in file.execute(query, some):
                    if len(row) != 4 * width or digest != _digest(key, row):
                        raise sqlite3.DatabaseError("a row is not what was written")
                    values = np.frombuffer(row, np.float32)
                    if np.isfinite(values).all():
                        stored[key] = values

        return stored if self._use(read) else {}

    def _write(self, new: dict[bytes, Rows]) -> None:
        rows = [(key, data := row.tobytes(), _digest(key, data)) for key, row in new.items()]

        def write(file: sqlite3.Connection) -> None:
            with file:
                file.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)

        self._use(write)

    def _use(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        """Work with the database, and return whether that succeeded.

        It fails if the database is in use, or damaged: then it is discarded.
        """
        path: Path = cache_dir("features") / self._name
        try:
            if path.exists() and not path.is_file():
                raise sqlite3.DatabaseError("a pipe, for one")
            with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as file:
                file.execute("PRAGMA synchronous = OFF")  # what is lost is made again
                columns = "key BLOB PRIMARY KEY, row BLOB, hash BLOB"
                file.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
                work(file)
            return True
        except (sqlite3.OperationalError, OSError):  # in use, or the disk does not take it
            pass
        except (sqlite3.DatabaseError, TypeError):  # TypeError: a value of another type
            discard_damaged(path)
        return False


def _digest(key: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(key + row, digest_size=16).digest()


def image_key(image: Image.Image) -> bytes:
    """Return a key of a picture's pixels in RGB."""
    picture = image.convert("RGB")
    head = f"image {picture.width} {picture.height} ".encode()
    return hashlib.blake2b(head + picture.tobytes(), digest_size=20).digest()


def text_key(text: str) -> bytes:
    """Return a key of a text."""
    return hashlib.blake2b(f"text {text}".encode(), digest_size=20).digest()
