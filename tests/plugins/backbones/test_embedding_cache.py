"""Cached embeddings: as they were written, or computed again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_plugins.backbones._weights.embedding_cache import cache_key, cached_rows, entry

KEYS = [cache_key("number", bytes([n])) for n in range(4)]
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))


def computed(keys: list[bytes], model: str = "weights", rows: np.ndarray = ROWS) -> int:
    """Ask for a batch, and return how many rows had to be computed; what is right is checked."""
    asked: list[int] = []

    def compute() -> np.ndarray:
        asked.append(len(keys))
        return rows[: len(keys)]

    np.testing.assert_array_equal(cached_rows(model, keys, compute), rows[: len(keys)])
    return sum(asked)


def test_a_batch_is_computed_once() -> None:
    asked = [KEYS, KEYS, KEYS[:3], KEYS[::-1], KEYS]
    assert [computed(keys) for keys in asked] == [4, 0, 3, 4, 0]
    assert computed(KEYS, "other weights") == 4


def one_bit_more(path: Path) -> None:
    *content, last = path.read_bytes()
    path.write_bytes(bytes([*content, last ^ 1]))


DAMAGES: list[Callable[[Path], Any]] = [
    one_bit_more,
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    Path.unlink,
    *(
        lambda path, make=make: (path.unlink(), make(path))
        for make in (Path.touch, os.mkfifo, os.mkdir)
    ),
]


@pytest.mark.filterwarnings("ignore:.*in the cache is damaged")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_not_written_is_computed_again(damage: Callable[[Path], Any]) -> None:
    assert computed(KEYS) == 4
    damage(entry("weights", KEYS))
    assert computed(KEYS) == 4


def test_rows_that_are_not_finite_are_not_kept() -> None:
    rows = np.where(ROWS == 5, np.nan, ROWS)
    assert [computed(KEYS, rows=rows) for _ in range(2)] == [4, 4]
