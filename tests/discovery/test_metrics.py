"""The registry of metrics: which have columns, and which studies test."""

from __future__ import annotations

from helpers.refusals import refused

from bench.discovery.loading import metric_of_runs, metric_specs


def test_boards_have_a_column_of_macro_f1() -> None:
    assert [name for name, metric in metric_specs().items() if metric.column] == [
        "f1_weighted",
        "f1_macro",
    ]


def test_a_metric_that_is_not_registered_is_refused() -> None:
    with refused("'f1-macro'", "'f1_macro'"):
        metric_of_runs("f1-macro")
