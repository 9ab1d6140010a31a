"""benchmarks/race_front.py: races in numpy decide as the strategies do, and the front is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tables import concluded, make, run

from bench.inputs.draws import timestep_grid
from benchmarks import race_front, race_replay
from benchmarks.race_promises import DRAWS, TIE, made_up

GRID = timestep_grid(DRAWS, 1000)
WITHIN = {"ceiling": "published", "first": 2}


@pytest.mark.parametrize("classes", [2, 10, 21])
@pytest.mark.parametrize("lead", [TIE, 0.5])
def test_tables_are_decided_as_by_the_strategies(classes: int, lead: float) -> None:
    tables = made_up("t2", classes, 8, lead)
    errors = np.array(tables, np.float64)
    spent = race_replay.spending(1e-3, memory=True)
    cases: list[tuple[str, dict[str, Any], race_replay.Decisions]] = [
        ("adaptive", {}, race_replay.adaptive(errors)),
        ("race", {}, race_replay.race(errors, race_replay.dial(0.02), 4, GRID)),
        ("race", {**WITHIN, "delta": 1e-3}, race_replay.race(errors, spent, 2, GRID, "even", True)),
    ]
    for name, params, decided in cases:
        single = [run(make(name, DRAWS, **params), table) for table in tables]
        assert [concluded(one).ranking[0] for one in single] == decided.winners.tolist()
        assert [one.equivalents for one in single] == decided.costs.tolist()


def test_every_candidate_has_a_place_on_the_front(tmp_path: Path) -> None:
    errors = np.array(made_up("normal", 10, 40, 0.5), np.float64)
    tables = race_front.Tables("ahead", "normal", errors[20:], GRID)
    _, rows = race_front.measured(tables)
    assert list(rows) == list(race_front.CANDIDATES)
    assert rows["d: ceiling=published delta=0.001"].relative <= 1
    assert rows["race"].interval[0] <= rows["race"].points <= rows["race"].interval[1]
    measures = {name: [row] for name, row in rows.items()}
    race_front.plot(["ahead"], measures, tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 1000
