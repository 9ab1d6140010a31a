"""Cached embeddings: as they were written, or computed again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench_plugins.backbones._embedding_cache import EmbeddingCache, Rows, cache_key

WIDTH = 3
KEYS = [cache_key("number", bytes([n])) for n in range(40)]


class Model:
    """Counts the rows that it computes; row n is made from its place among the keys."""

    def __init__(self) -> None:
        self.computed = 0

    def rows(self, keys: Sequence[bytes], cache: EmbeddingCache | None = None) -> Rows:
        def compute(places: Sequence[int]) -> Rows:
            self.computed += len(places)
            return np.array([[KEYS.index(keys[n]), 2, 3] for n in places], np.float32)

        return (cache or EmbeddingCache("weights", WIDTH)).rows(keys, compute)

    def assert_cached(self, keys: Sequence[bytes], computed: int) -> None:
        """Check that all rows are right, and how many of them were computed."""
        before, rows = self.computed, self.rows(keys)
        assert rows.tolist() == [[KEYS.index(key), 2, 3] for key in keys]
        assert self.computed - before == computed


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    return Model()


def stored(folder: Path) -> Path:
    (file,) = folder.rglob("*.rows")
    return file


def test_a_row_is_computed_once_whatever_is_asked_with_it(model: Model, tmp_path: Path) -> None:
    model.assert_cached([KEYS[0], KEYS[1], KEYS[0]], 2)
    model.assert_cached(KEYS[1:5], 3)
    model.assert_cached(KEYS[::-1], len(KEYS) - 5)
    model.assert_cached(KEYS, 0)
    assert len(list(tmp_path.rglob("*.rows"))) == 1  # of all batches


def test_rows_of_another_cache_that_is_open_are_found(model: Model) -> None:
    first, second = (EmbeddingCache("weights", WIDTH) for _ in range(2))
    for start in range(0, 40, 10):
        for cache in (first, second):
            model.rows(KEYS[start : start + 10], cache)
    assert model.computed == 40


def overwritten(path: Path) -> int:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1  # in the row of the last record
    path.write_bytes(content)
    return 1


def cut(path: Path) -> int:
    path.write_bytes(path.read_bytes()[:-1])  # as a process that was killed may leave it
    return 1


def zeros(path: Path) -> int:
    path.write_bytes(bytes(path.stat().st_size))  # as a power cut may leave it
    return len(KEYS)


def rubbish(path: Path) -> int:
    path.write_bytes(b"rubbish" * 1000)
    return len(KEYS)


def emptied(path: Path) -> int:
    path.write_bytes(b"")
    return len(KEYS)


def deleted(path: Path) -> int:
    path.unlink()
    return len(KEYS)


@pytest.mark.parametrize("damage", [overwritten, cut, zeros, rubbish, emptied, deleted])
def test_damaged_rows_alone_are_computed_again(
    damage: Callable[[Path], int], model: Model, tmp_path: Path
) -> None:
    earlier = EmbeddingCache("weights", WIDTH)
    model.rows(KEYS, earlier)
    lost = damage(stored(tmp_path))
    assert np.array_equal(model.rows(KEYS, earlier)[:, 0], np.arange(len(KEYS)))
    assert model.computed == len(KEYS) + lost
    model.assert_cached(KEYS, 0)


@pytest.mark.filterwarnings("ignore:.*in the cache is damaged")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_ends_nothing(
    make: Callable[[Path], None], model: Model, tmp_path: Path
) -> None:
    model.rows(KEYS)
    path = stored(tmp_path)
    path.unlink()
    make(path)
    model.assert_cached(KEYS, len(KEYS))


def test_rows_that_are_not_finite_are_not_kept(model: Model) -> None:
    for _ in range(2):
        rows = EmbeddingCache("weights", WIDTH).rows(
            KEYS[:2], lambda places: np.array([[np.nan, 2, 3], [1, 2, 3]], np.float32)[places]
        )
        assert np.isnan(rows[0, 0]) and rows[1].tolist() == [1, 2, 3]
    model.assert_cached(KEYS[:2], 1)


AT_ONCE = f"""
import numpy as np
from bench_plugins.backbones._embedding_cache import EmbeddingCache, cache_key
keys = [cache_key("number", bytes([n])) for n in range({len(KEYS)})]
cache = EmbeddingCache("weights", {WIDTH})
for key in keys:
    place = float(keys.index(key))
    assert cache.rows([key], lambda _: np.array([[place, 2, 3]], np.float32))[0, 0] == place
"""


@pytest.mark.long
def test_processes_that_write_at_once_lose_nothing(model: Model, tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", AT_ONCE]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    model.assert_cached(KEYS, 0)
    records, rest = divmod(stored(tmp_path).stat().st_size, 20 + 4 * WIDTH + 16)
    assert len(KEYS) <= records <= 4 * len(KEYS) and rest == 0
