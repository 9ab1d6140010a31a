"""How long the rest of a study takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.matrix import matrix
from helpers.studies import GRID

from bench.running.study.course import Clock


def test_what_is_left_is_what_cells_took_so_far() -> None:
    clock = Clock()
    assert clock.left([(1, 40)]) is None
    clock.note(0, 10.0, 8.0, 40, 0)
    assert clock.left([(1, 40), (2, 20)]) == pytest.approx(2 * 2.0 + 0.2 * 60)
    clock.note(1, 4.0, 2.0, 10, 30)  # a pilot of another speed
    assert clock.left([(1, 999)]) == pytest.approx(2.0 + 0.2 * 30)


@pytest.mark.parametrize(
    ("pilot", "limit", "expected"),
    matrix(
        [
            (0, 40, [[40, 40], [40], []]),
            (0, None, [[360, 360], [360], []]),
            (10, 40, [[10, 10, 40, 40, 40], [10, 40, 40, 40], [40, 40, 40], [40, 40], [40], []]),
        ],
        [(0, 40, [[40, 40], [40], []])],
    ),
)
def test_cells_that_were_not_begun_have_their_images(
    pilot: int,
    limit: int | None,
    expected: list[list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[int]] = []

    def left(self: Clock, cells: Sequence[tuple[int, int]]) -> None:
        asked.append([images for _, images in cells])

    monkeypatch.setattr(Clock, "left", left)
    file = tmp_path / "small.toml"
    grid = GRID.replace("pilot = 10", f"pilot = {pilot}")
    file.write_text(grid if limit else grid.replace("limit = 40\n", ""))
    assert bench("study", file, "--results", tmp_path / "r").code == 0
    assert asked == expected
