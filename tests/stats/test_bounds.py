"""benchmarks/verdicts.py: the table of what answers promise is that of the documentation."""

from __future__ import annotations

import re

import numpy as np
from helpers.places import ROOT

from benchmarks import verdicts


def test_the_table_of_promises_is_printed_by_the_benchmark() -> None:
    page = (ROOT / "docs" / "concepts" / "racing.md").read_text("utf-8")
    for bound in verdicts.BOUNDS:
        row = re.escape(f"| {' | '.join(bound)} | ")
        figures = re.findall(rf"^{row}(\S+) % \|$", page, re.MULTILINE)
        assert len(figures) == 1 and float(figures[0]) <= 5


def test_simulated_studies_and_pairs_claim_what_is_known_of_them() -> None:
    """Far from every limit nothing is false; an order of unequal methods is no false order."""
    best = verdicts.Course(*verdicts.courses((0.95, 0.05), strict=True, runs=3))
    assert not best.given and not best.named and best.images < 2 * verdicts.IMAGES
    assert verdicts.misordered((0.95, 0.05), 3) == 0
    assert not verdicts.misses(np.tile([1.0, -1.0], 50), 0.0)
    assert verdicts.misses(np.ones(100), 0.0)
    assert 0.01 < verdicts.audits(20) <= 0.05
