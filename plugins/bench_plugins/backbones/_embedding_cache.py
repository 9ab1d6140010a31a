"""Cache embeddings of images and texts on disk: one file per model, to which records are appended.

A record is a key, a row of numbers, and the hash of both. A record that does not match its hash is
ignored, so that the row is computed and appended again.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from bench.machine.cache import cache_dir, reading_cached
from bench.machine.files import open_regular

CACHE_FORMAT = 3  # 1 had no hashes, and 2 was an SQLite database
# Another version of any of these may compute other embeddings, so it has another file.
EMBEDDING_LIBRARIES = ("torch", "transformers", "tokenizers", "pillow")
KEY_BYTES, HASH_BYTES = 20, 16
LOCK_SECONDS = 20.0  # to wait for another process that writes

Rows = NDArray[np.float32]


class EmbeddingCache:
    """Cached rows of `width` numbers; `model` is everything that identifies what computes them.

    If the cache cannot be read or written, rows are computed again and no error is raised.
    """

    def __init__(self, model: str, width: int) -> None:
        libraries = [f"{name} {version(name)}" for name in EMBEDDING_LIBRARIES]
        content = json.dumps([CACHE_FORMAT, libraries, model, width]).encode()
        self._path = cache_dir("features") / f"{hashlib.sha256(content).hexdigest()}.rows"
        self._size = KEY_BYTES + 4 * width + HASH_BYTES  # of a record
        self._places: dict[bytes, int] = {}  # key → start of its last record
        self._end = 0  # of the records in `_places`

    def rows(self, keys: Sequence[bytes], compute: Callable[[Sequence[int]], Rows]) -> Rows:
        """Return one row per key of `cache_key`, float32 [n, width]. Keys may be repeated.

        `compute` returns the rows at given indices of `keys`, and is called for uncached ones only.
        """
        cached = self._read(set(keys))
        missing = {key: index for index, key in enumerate(keys) if key not in cached}
        if missing:
            computed = np.ascontiguousarray(compute(list(missing.values())), np.float32)
            new = dict(zip(missing, computed, strict=True))
            self._append(new)
            cached.update(new)
        return np.stack([cached[key] for key in keys])

    def _read(self, keys: set[bytes]) -> dict[bytes, Rows]:
        cached: dict[bytes, Rows] = {}
        with reading_cached(self._path), open_regular(self._path) as file:
            file.seek(self._end)  # other processes may have appended records since
            while len(record := file.read(self._size)) == self._size:
                self._places[record[:KEY_BYTES]] = self._end
                self._end += self._size
            for key in keys & self._places.keys():
                file.seek(self._places[key])
                record = file.read(self._size)
                row = record[KEY_BYTES:-HASH_BYTES]
                if record == _make_record(key, row):
                    cached[key] = np.frombuffer(row, np.float32)
        return cached

    def _append(self, new: dict[bytes, Rows]) -> None:
        """Append finite rows if possible, after cutting off what a killed process left unfinished.

        A sync would take 5 ms, so a power cut may lose them.
        """
        finite = [(key, row.tobytes()) for key, row in new.items() if np.isfinite(row).all()]
        lock = FileLock(f"{self._path}.lock", LOCK_SECONDS)
        # An OSError means that it is not writable, or was locked for too long.
        with suppress(OSError), lock, self._path.open("ab") as file:
            file.truncate(file.tell() // self._size * self._size)
            file.write(b"".join(_make_record(key, row) for key, row in finite))


def _make_record(key: bytes, row: bytes) -> bytes:
    return key + row + hashlib.blake2b(key + row, digest_size=HASH_BYTES).digest()


def cache_key(kind: str, content: bytes) -> bytes:
    """Return the cache key of some content."""
    return hashlib.blake2b(f"{kind} ".encode() + content, digest_size=KEY_BYTES).digest()


def image_key(image: Image.Image) -> bytes:
    """Return the cache key of an image: a hash of its size and RGB pixels."""
    pixels = image.convert("RGB")
    return cache_key(f"image {pixels.width} {pixels.height}", pixels.tobytes())
