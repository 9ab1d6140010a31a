"""A thread that makes things ahead of time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bench.engine.transfer import ahead


def test_a_thread_ahead_keeps_order_and_errors_and_ends() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    before = threading.active_count()
    stream = ahead(items(), depth=2)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    stream.close()
    assert len(made) <= 10 and threading.active_count() == before
    assert list(ahead(range(50), depth=3)) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    stream = ahead(failing(), depth=2)
    assert next(stream) == 1
    with pytest.raises(KeyError, match="two"):
        next(stream)
