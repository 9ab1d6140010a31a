"""Metrics and the Monte-Carlo error, against other computations and by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import a_manifest, a_record, store
from sklearn import metrics as sk

from bench.stats.calibration.agreement import repeatability
from bench.stats.metrics.summarise import (
    Statistics,
    confusions_of,
    cost,
    metrics,
    per_class,
    statistics,
    worst_confusions,
)
from bench.store.folder import read_manifest, requested_records
from bench.store.formats.decisions import as_decisions, read_decisions


@pytest.fixture(scope="module")
def decided() -> Any:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 300)
    predictions = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 5, 300))
    return [
        a_record(str(i), int(y), int(p))
        for i, (y, p) in enumerate(zip(labels, predictions, strict=True))
    ]


def test_metrics_equal_sklearn(decided: Any) -> None:
    true, said = ([r[key] for r in decided] for key in ("label", "prediction"))
    found = metrics(as_decisions(decided), "abcde").plain()
    for average in ("weighted", "macro"):
        wanted = sk.precision_recall_fscore_support(
            true, said, labels=range(4), average=average, zero_division=0
        )
        names = [f"{m}_{average}" for m in ("precision", "recall", "f1")]
        assert [found[name] for name in names] == pytest.approx(wanted[:3])
    assert found["accuracy"] == sk.accuracy_score(true, said) == found["recall_weighted"]
    assert (
        confusions_of(as_decisions(decided)).square(np.arange(5))
        == sk.confusion_matrix(true, said, labels=range(5))
    ).all()


@pytest.mark.parametrize(("scoring", "passes"), [({}, 1), ({"loss": "l2"}, 50)])
def test_operations_per_image_are_those_of_one_pass_or_of_all(
    scoring: dict[str, str], passes: int, decided: Any
) -> None:
    """A classifier makes one pass per image; a denoiser's records have 50 evaluations."""
    manifest = a_manifest([r["sample_id"] for r in decided], scoring=scoring, evaluation_flop=7e9)
    price = cost(manifest, as_decisions(decided), 10.0, None)
    assert price.flop_per_image == passes * 7e9 and price.total_seconds == 10.0


def test_a_perfect_run_is_exactly_one() -> None:
    """0.9999999999999999 in a table of results would look like a mistake."""
    records: Any = [a_record(str(i), i % 7, i % 7) for i in range(360)]
    found = metrics(as_decisions(records), "abcdefg").plain()
    assert {found[k] for k in found if k.endswith(("weighted", "macro", "accuracy"))} == {1.0}


def test_per_class_by_hand() -> None:
    said = [(0, 0), (0, 0), (0, 1), (1, 1), (1, None)]
    records: Any = [a_record(str(i), y, p) for i, (y, p) in enumerate(said)]
    zero, one, two = per_class(as_decisions(records), ["a", "b", "c"])
    assert (zero.n, zero.predicted, zero.recall, zero.precision) == (3, 2, 2 / 3, 1)
    assert (one.n, one.predicted, one.recall, one.precision) == (2, 2, 0.5, 0.5)
    assert two.n == 0 and two.recall is None and two.recall_ci95 is None
    assert zero.recall_ci95
    # Wilson 1927 for 2 of 3, from the closed form.
    assert [round(x, 4) for x in zero.recall_ci95] == [0.2077, 0.9385]
    assert metrics(as_decisions(records), "abc").plain()["chance"] == pytest.approx(1 / 3)
    assert worst_confusions(confusions_of(as_decisions(records)), "abc") == [("a", "b", 1)]


def test_what_a_strategy_does_not_claim_is_not_invented() -> None:
    records: Any = [a_record("a", 0, 0, confidence=None, margin_stderr=None)]
    assert repeatability(as_decisions(records)) is None


def test_columns_equal_records(tmp_path: Path) -> None:
    """The quick way to read a run and the patient one say the same."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50).tolist()
    predictions = [None if i % 9 == 0 else int(rng.integers(0, 3)) for i in range(50)]
    path = store(tmp_path, labels, predictions)
    manifest = read_manifest(path)
    quick, patient = (
        read_decisions(path, manifest, top=True),
        as_decisions(requested_records(path, manifest)),
    )
    assert quick.sample_ids.to_pylist() == patient.sample_ids.to_pylist() == manifest.samples
    assert statistics(quick, manifest.classes) == statistics(patient, manifest.classes)
    shown = bench("show", path, "--statistics", "--json").json["statistics"]
    assert Statistics.model_validate_json(json.dumps(shown)) == statistics(quick, manifest.classes)
    assert shown["per_class"][0]["class"] == manifest.classes[0]
    assert quick.failed.sum() == 6
