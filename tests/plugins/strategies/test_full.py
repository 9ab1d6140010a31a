"""`full-linearised` decides as `full` does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from helpers.tables import concluded, make, make_problem, make_table

from bench.contracts.dataset import Sample
from bench.recordings.recording import Tables
from bench.recordings.replay import decide

COST = 3.0


def test_full_linearised_decides_as_full() -> None:
    errors = make_table(7, 30, gap=0.001)
    problem = replace(make_problem(errors), can_linearise=True)
    known = Tables(errors, [(np.full(7, 1 / 7), errors)], COST)
    one, other = (
        decide(Sample("x", 0, {}), known, make(name, 30), problem)
        for name in ("full", "full-linearised")
    )
    np.testing.assert_array_equal(concluded(one).scores, concluded(other).scores)
    assert other.linearisations == 30 and other.equivalents == one.equivalents + 30 * COST
