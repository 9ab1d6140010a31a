"""What a metric and a backbone declare, and what follows from it."""

from typing import Any

import pytest
from helpers.refusals import refused

from bench.contracts.metric_spec import RECALL, RESERVED, ClassRatio, MetricSpec
from bench.contracts.specs import UNDECLARED, UNKNOWN, BackboneSpec, provenance, training_group
from bench.reports.inventory import InventoryRow, RecordingRow
from bench.reports.leaderboard.rows import LeaderboardRow, ReportedResult
from bench.reports.rows import RunRow
from bench.reports.study.methods import StudyRow
from bench.store.formats.fields import MetricFields
from bench.store.summary import Metrics

F1 = ClassRatio(hits=2, support=1, predicted=1)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "ratio"),
        ({"ratio": F1, "target": "package.module:Mine"}, "ratio"),
        ({"ratio": F1, "needs": ("prediction", "score")}, "'score'"),
        ({"ratio": F1, "range": (1.0, 0.0)}, "range"),
        ({"ratio": F1, "direction": "up"}, "'up'"),
        ({"ratio": F1, "hub": ("f1",)}, "hub"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(
    fields: dict[str, Any], problem: str
) -> None:
    with refused(problem, kind=ValueError):
        MetricSpec(name="mine", **fields)


def test_what_every_record_has_is_in_summaries() -> None:
    assert MetricSpec(name="mine", ratio=RECALL, by_support=True).mean_over_images
    assert MetricSpec(name="of-two", target="a.b:C", needs=("prediction", "top5")).in_summaries
    assert not MetricSpec(name="of-two", target="a.b:C", needs=("scores",)).in_summaries
    assert MetricSpec(name="of-two", target="a.b:C").words == "of two"


def test_no_metric_has_the_name_of_a_field() -> None:
    rows: list[type[MetricFields]] = [LeaderboardRow, StudyRow, InventoryRow, RecordingRow]
    documents: list[type[MetricFields]] = [Metrics, ReportedResult, RunRow, *rows]
    assert {*MetricFields.__subclasses__(), *RunRow.__subclasses__()} == set(documents)
    assert {name for d in documents for name in d.model_fields} - {"accuracy"} <= RESERVED
    with refused("'chance'", kind=ValueError):
        MetricSpec(name="chance", ratio=RECALL)


def test_zero_shot_is_said_on_purpose() -> None:
    silent = BackboneSpec(name="x", target="a:B")
    assert provenance(silent.trained_on) == "training data undeclared"
    assert (
        provenance(BackboneSpec(name="x", target="a:B", trained_on=None).trained_on) == "zero-shot"
    )


@pytest.mark.parametrize("trained_on", [UNKNOWN, UNDECLARED])
def test_only_the_same_weights_are_alike_where_nobody_says(trained_on: str) -> None:
    assert training_group(trained_on, "a") != training_group(trained_on, "b")
    assert training_group(trained_on, "a") == training_group(trained_on, "a")
    assert training_group(UNKNOWN, "a") != training_group(UNDECLARED, "a")


@pytest.mark.parametrize("trained_on", [None, "digits/train"])
def test_other_weights_trained_on_the_same_data_are_alike(trained_on: str | None) -> None:
    assert training_group(trained_on, "a") == training_group(trained_on, "b")
