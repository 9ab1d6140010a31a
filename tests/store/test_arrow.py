"""Conversions between numpy and pyarrow: equal to pyarrow's own, which import pandas."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bench.store.formats.arrow import booleans, indices, strings, values


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("content", [[], [1], [3, 1, 2]], ids=str)
def test_numbers(kind: Any, content: list[int]) -> None:
    column = pa.chunked_array([pa.array(content, kind), pa.array(content, kind)])
    own = column.to_numpy()
    assert np.array_equal(values(column), own) and values(column).dtype == own.dtype


def test_a_slice_begins_where_it_is_cut() -> None:
    assert values(pa.array([1, 2, 3, 4], pa.int64())[2:]).tolist() == [3, 4]


def test_nulls_are_what_stands_for_them() -> None:
    column = pa.array([1.5, None, 2.5])
    assert np.array_equal(values(column, np.nan), [1.5, np.nan, 2.5], equal_nan=True)
    assert values(pa.array([None, 7], pa.int64()), -1).tolist() == [-1, 7]


def test_truths_indices_and_texts() -> None:
    assert booleans(pa.array([True, False, True])).tolist() == [True, False, True]
    assert indices(np.array([2, 0])).equals(pa.array([2, 0], pa.int64()))
    texts = ["", "ä", "b\n", "日本"]
    assert strings(texts).equals(pa.array(texts, pa.string()))
