"""Decisions as columns: what is unknown, who failed, and who came second."""

from pathlib import Path

import numpy as np
import pytest
from helpers.runs import a_record, store

from bench.store.formats.decisions import FAILED, NO_RUNNER_UP, as_decisions, read_decisions
from bench.store.runs import read_run


def test_a_failed_image_is_wrong_and_of_no_class() -> None:
    decided = as_decisions([a_record("a", 0, 0), a_record("b", 0, None)])
    assert decided.predictions.tolist() == [0, FAILED]
    assert decided.correct.tolist() == [True, False]
    assert decided.failed.tolist() == [False, True]
    assert np.isnan(decided.margins).tolist() == [False, True]


def test_the_entries_of_top() -> None:
    top = [[2, 0.1, 5], [1, 0.3, 5], [0, None, 0]]
    decided = as_decisions([a_record("a", 1, 2, top=top), a_record("b", 0, 2, top=[[2, 0.1, 4]])])
    assert decided.runner_up is not None and decided.runner_up.tolist() == [1, NO_RUNNER_UP]
    assert decided.in_top5 is not None and decided.in_top5.tolist() == [True, False]
    assert decided.draws is not None and decided.draws.tolist() == [5, 4]
    assert decided.gaps is not None
    assert decided.gaps[0, 0] == pytest.approx(0.2)
    assert np.isinf(decided.gaps[0, 1:]).all()  # a class without a draw has no score
    assert np.isinf(decided.gaps[1]).all()


def test_without_linearisations_the_equivalents_are_the_evaluations() -> None:
    decided = as_decisions([a_record("a", 0, 0), a_record("b", 0, 0, equivalents=52.5)])
    assert decided.equivalents.tolist() == [50.0, 52.5]


def test_columns_that_no_image_has_are_none() -> None:
    decided = as_decisions([a_record("a", 0, 0)])
    assert decided.groups is None and decided.decided_by is None and decided.image_right is None
    grouped = as_decisions([a_record("a", 0, 0, group="g"), a_record("b", 0, None)])
    assert grouped.groups is not None and grouped.groups.tolist() == ["g", ""]


def test_the_order_is_the_manifest_s(tmp_path: Path) -> None:
    run = read_run(store(tmp_path, [0, 1, 2], [0, 1, 1]))
    backwards = run.manifest.model_copy(update={"samples": ["s0002", "s0000", "absent"]})
    decided = read_decisions(run.path, backwards)
    assert decided.sample_ids.to_pylist() == ["s0002", "s0000"]
    assert decided.labels.tolist() == [2, 0]
