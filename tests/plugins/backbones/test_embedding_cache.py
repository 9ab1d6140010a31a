"""Cached embeddings: as they were written, or computed again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchWarning
from bench_plugins.backbones._embedding_cache import EmbeddingCache, Rows

KEYS = [b"one", b"two"]


def overwritten(path: Path) -> None:
    with sqlite3.connect(path) as file:
        other = np.zeros(3, np.float32).tobytes()
        file.execute("UPDATE rows SET row = ? WHERE key = ?", (other, b"two"))
    file.close()


def as_text(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("UPDATE rows SET row = 'text' WHERE key = ?", (b"two",))
    file.close()


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage", [overwritten, as_text, piped, lambda path: path.write_bytes(b"rubbish" * 1000)]
)
def test_damaged_rows_are_computed_again(
    damage: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    made: list[int] = []

    def make(places: Sequence[int]) -> Rows:
        made.append(len(places))
        return np.array([[place + 1.0, 2, 3] for place in places], np.float32)

    wanted = EmbeddingCache("weights").rows(KEYS, 3, make)
    np.testing.assert_array_equal(EmbeddingCache("weights").rows(KEYS, 3, make), wanted)
    assert made == [2]
    (file,) = tmp_path.rglob("*.sqlite")
    damage(file)
    with pytest.warns(BenchWarning, match="sqlite in the cache is damaged"):
        np.testing.assert_array_equal(EmbeddingCache("weights").rows(KEYS, 3, make), wanted)
    np.testing.assert_array_equal(EmbeddingCache("weights").rows(KEYS, 3, make), wanted)
    assert len(made) == 2  # kept again
