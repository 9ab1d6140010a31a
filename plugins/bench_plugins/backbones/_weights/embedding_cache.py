"""Cache embeddings of images and texts on disk, one entry for each batch that was embedded.

A repeated run has the same batches, whatever its prompts or its rule of decision.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.machine.cache import cache_dir, read_cached, write_cached

CACHE_FORMAT = 4  # 1 and 3 had a file per model, and 2 was an SQLite database
# Another version of any of these may compute other embeddings.
EMBEDDING_LIBRARIES = ("torch", "transformers", "tokenizers", "pillow")
KEY_BYTES = 20

Rows = NDArray[np.float32]


def cached_rows(model: str, keys: Sequence[bytes], compute: Callable[[], Rows]) -> Rows:
    """Return what `compute` returns for a batch with these keys, float32 [n, D], or what it did.

    `model` is everything that identifies what computes them. Rows that are not finite are not kept.
    """
    path = entry(model, keys)
    if stored := read_cached(path):
        return np.frombuffer(stored, np.float32).reshape(len(keys), -1)
    rows = np.ascontiguousarray(compute(), np.float32)
    if np.isfinite(rows).all():
        write_cached(path, rows.tobytes())
    return rows


def entry(model: str, keys: Sequence[bytes]) -> Path:
    """Return the file of a batch with these keys."""
    libraries = [f"{name} {version(name)}" for name in EMBEDDING_LIBRARIES]
    content = json.dumps([CACHE_FORMAT, libraries, model]).encode() + b"".join(keys)
    return cache_dir("features") / f"{hashlib.sha256(content).hexdigest()}.rows"


def cache_key(kind: str, content: bytes) -> bytes:
    """Return the key of some content."""
    return hashlib.blake2b(f"{kind} ".encode() + content, digest_size=KEY_BYTES).digest()


def image_key(image: Image.Image) -> bytes:
    """Return the key of an image: a hash of its size and RGB pixels."""
    pixels = image.convert("RGB")
    return cache_key(f"image {pixels.width} {pixels.height}", pixels.tobytes())
