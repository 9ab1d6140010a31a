"""Cache embeddings of images and texts on disk, in one SQLite file per model."""

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

CACHE_FORMAT = 2  # 1 had no hashes
# Another version of any of these may compute other embeddings, so it has another file.
EMBEDDING_LIBRARIES = ("torch", "transformers", "tokenizers", "pillow")
KEYS_PER_QUERY = 500
LOCK_SECONDS = 20.0  # to wait for another process that writes

Rows = NDArray[np.float32]


class EmbeddingCache:
    """Cached rows of numbers by key; `model` is everything that identifies what computes them.

    If the cache cannot be read or written, rows are computed again and no error is raised.
    """

    def __init__(self, model: str) -> None:
        libraries = [f"{name} {version(name)}" for name in EMBEDDING_LIBRARIES]
        content = json.dumps([CACHE_FORMAT, libraries, model])
        self._name = f"{hashlib.sha256(content.encode()).hexdigest()}.sqlite"

    def rows(
        self, keys: Sequence[bytes], width: int, compute: Callable[[Sequence[int]], Rows]
    ) -> Rows:
        """Return one row per key, float32 [n, width]. Keys may be repeated.

        `compute` returns the rows at given indices of `keys`, and is called for uncached ones only.
        """
        cached = self._read(set(keys), width)
        missing = {key: index for index, key in enumerate(keys) if key not in cached}
        if missing:
            computed = np.ascontiguousarray(compute(list(missing.values())), np.float32)
            new = dict(zip(missing, computed, strict=True))
            self._write(new)
            cached.update(new)
        return np.stack([cached[key] for key in keys])

    def _read(self, keys: set[bytes], width: int) -> dict[bytes, Rows]:
        cached: dict[bytes, Rows] = {}
        in_order = sorted(keys)

        def read(file: sqlite3.Connection) -> None:
            for start in range(0, len(in_order), KEYS_PER_QUERY):
                batch = in_order[start : start + KEYS_PER_QUERY]
                placeholders = ",".join("?" * len(batch))
                query = f"SELECT key, row, hash FROM rows WHERE key IN ({placeholders})"
                for key, row, digest in file.execute(query, batch):
                    if len(row) != 4 * width or digest != _digest(key, row):
                        raise sqlite3.DatabaseError("a row does not match its hash")
                    values = np.frombuffer(row, np.float32)
                    if np.isfinite(values).all():
                        cached[key] = values

        return cached if self._use(read) else {}

    def _write(self, new: dict[bytes, Rows]) -> None:
        rows = [(key, data := row.tobytes(), _digest(key, data)) for key, row in new.items()]

        def write(file: sqlite3.Connection) -> None:
            with file:
                file.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)

        self._use(write)

    def _use(self, work: Callable[[sqlite3.Connection], None]) -> bool:
        """Call `work` with the open database, and return whether that succeeded.

        It fails if the database is locked, not writable or damaged. A damaged one is deleted.
        """
        path: Path = cache_dir("features") / self._name
        try:
            if path.exists() and not path.is_file():
                raise sqlite3.DatabaseError("not a regular file")
            with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as file:
                file.execute("PRAGMA synchronous = OFF")  # lost rows are computed again
                columns = "key BLOB PRIMARY KEY, row BLOB, hash BLOB"
                file.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
                work(file)
            return True
        except (sqlite3.OperationalError, OSError):  # locked, or not writable
            pass
        except (sqlite3.DatabaseError, TypeError):  # TypeError: a column has another type
            discard_damaged(path)
        return False


def _digest(key: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(key + row, digest_size=16).digest()


def image_key(image: Image.Image) -> bytes:
    """Return the cache key of an image: a hash of its size and RGB pixels."""
    pixels = image.convert("RGB")
    head = f"image {pixels.width} {pixels.height} ".encode()
    return hashlib.blake2b(head + pixels.tobytes(), digest_size=20).digest()


def text_key(text: str) -> bytes:
    """Return the cache key of a text."""
    return hashlib.blake2b(f"text {text}".encode(), digest_size=20).digest()
