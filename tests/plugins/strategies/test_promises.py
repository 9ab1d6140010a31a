"""benchmarks/race_promises.py: a promise is kept, and a dial is none."""

import re
from typing import Any

import pytest
from helpers.places import ROOT

from bench.discovery.loading import load_plugins
from benchmarks.race_promises import KINDS, SETTINGS, SPAN, TIE, label, made_up, share

COUNT = 60
PAGE = (ROOT / "docs" / "concepts" / "racing.md").read_text("utf-8")
SIMULATIONS = (ROOT / "design" / "racing.md").read_text("utf-8")


@pytest.mark.parametrize("kind", ["normal", "rare spikes"])
def test_a_bound_with_a_span_keeps_its_level(kind: str) -> None:
    params = {"bound": "betting", "delta": 0.05, "span": SPAN}
    assert share(made_up(kind, 2, COUNT, TIE), "race", params).lost.sum() <= 6  # P = 0.03 at 5 %


@pytest.mark.parametrize(
    "params",
    [{}, {"delta": 1e-3, "ceiling": "published"}, {"bound": "betting", "delta": 0.05}],
    ids=str,
)
def test_a_dial_loses_more_than_its_level(params: dict[str, Any]) -> None:
    lost = share(made_up("rare spikes", 2, COUNT, TIE), "race", params).lost
    assert lost.mean() > max(0.06, params.get("delta", 0.02))


def test_the_page_has_the_rows_that_the_benchmark_prints() -> None:
    rows = re.findall(r"^\| (\S[^|]*) \| \d+\.\d \(\d+\) \|", SIMULATIONS, re.MULTILINE)
    assert rows == 2 * [label(name, params) for name, params in SETTINGS]
    assert f"| setting | {' | '.join(KINDS)} |" in SIMULATIONS


def test_every_strategy_has_its_row() -> None:
    table = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))
    for spec in load_plugins().strategies:
        assert f"`{spec.name}" in table, spec.name
