"""How long the rest of a study takes."""

from __future__ import annotations

import pytest

from bench.running.study.course import Clock


def test_what_is_left_is_what_cells_took_so_far() -> None:
    clock = Clock()
    assert clock.left([(1, 40)]) is None
    clock.note(0, 10.0, 8.0, 40, 0)
    assert clock.left([(1, 40), (2, 20)]) == pytest.approx(2 * 2.0 + 0.2 * 60)
    clock.note(1, 4.0, 2.0, 10, 30)  # a pilot of another speed
    assert clock.left([(1, 999)]) == pytest.approx(2.0 + 0.2 * 30)
