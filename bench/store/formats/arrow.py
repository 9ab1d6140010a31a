"""Conversions between numpy and pyarrow that share buffers.

pyarrow's own conversions import pandas if it is installed: 0.3 s of CPU time per command.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Bools, Ints
from bench.machine.libraries import pa


def values(column: Any, missing: float | None = None) -> NDArray[Any]:
    """Return a pyarrow column as a numpy array; nulls become `missing`, or undefined without it."""
    array = _combined(column)
    name = str(array.type)
    dtype = np.dtype({"double": "float64", "float": "float32"}.get(name, name))
    data = array.buffers()[1]
    if data is None or not len(array):
        numbers = np.zeros(len(array), dtype)
    else:
        numbers = np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)
    if array.null_count and missing is not None:
        numbers = np.where(booleans(array.is_valid()), numbers, dtype.type(missing))
    return numbers


def booleans(column: Any) -> Bools:
    """Return a pyarrow column of booleans as a numpy array; it must not have nulls."""
    return values(_combined(column).cast("int32")).astype(bool)


def indices(numbers: Ints) -> Any:
    """Return int64 [n] as a pyarrow array."""
    data = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(data), [None, pa.py_buffer(data)])


def strings(texts: Sequence[str]) -> Any:
    """Return texts as a pyarrow array."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    data = pa.py_buffer(b"".join(encoded))
    long = pa.LargeStringArray.from_buffers(len(encoded), pa.py_buffer(ends), data)
    return long.cast(pa.string())


def _combined(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column
