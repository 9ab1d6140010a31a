"""A study in a metric on request: its values, its test, and what a run lacks."""

from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.matrix import matrix
from helpers.refusals import refused
from helpers.scores import LABELS, some_scores, stored
from helpers.studies import store_study

from bench.discovery.queries import metric_specs
from bench.reports.comparisons import compare
from bench.reports.run_metric import measure_run
from bench.reports.run_view import read_view
from bench.reports.study import methods
from bench.reports.study.documents import StudyReport
from bench.reports.study.report import study_report
from bench.reports.study.tables import study_tables
from bench.stats.metrics.metric_checks import MetricParts
from bench.stats.metrics.metric_values import MeasuredMetric
from bench.store.columns import add_columns
from bench.store.folder import read_manifest


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        stored(tmp_path, sign * some_scores(seed), seed=seed, backbone=name)
        for name, seed, sign in (("good", 0, 1), ("other", 3, 1), ("bad", 5, -1))
    ]


def value(path: Path, metric: str, parameters: dict[str, Any] | None = None) -> MeasuredMetric:
    [(_, row)] = measure_run(read_view(path), metric, parameters or {})
    assert not isinstance(row, str)
    return row


def report_of(runs: list[Path], metric: str, **parameters: Any) -> StudyReport:
    folder = store_study(runs[0].parent, runs)
    return study_report(folder, metric=metric, parameters=parameters)


@pytest.mark.parametrize("metric", matrix(["auroc", "average_precision"], ["average_precision"]))
def test_a_metric_with_influence_values_is_tested_as_two_runs_are(
    runs: list[Path], metric: str
) -> None:
    report = report_of(runs, metric)
    paths = {read_manifest(path).backbone.name: path for path in runs}
    for method in report.methods:
        row = value(paths[method.method], metric)
        assert method.shown.value == pytest.approx(row.value)
        assert method.shown.interval == pytest.approx(row.ci95)
    pair = report.differences[0].differences[1]
    alone = compare(runs[0], runs[2], metric).tested
    assert alone is not None and (pair.a, pair.b) == ("good", "bad")
    assert pair.difference == alone.difference and alone.difference.method == "influence"
    assert {method.method: method.rank for method in report.methods}["bad"] == (3, 3)
    assert "z tests of influence values" in report.reading


def test_a_mean_over_images_is_tested_as_accuracies_are(runs: list[Path]) -> None:
    for path in runs:
        manifest = read_manifest(path)
        names = (f"class {label}" for label in LABELS)
        add_columns(path, manifest, {"classes": dict(zip(manifest.samples, names, strict=True))})
    same, accuracy = (report_of(runs, name) for name in ("multilabel_accuracy", "accuracy"))
    assert same.differences[0].differences == accuracy.differences[0].differences
    assert [method.rank for method in same.methods] == [method.rank for method in accuracy.methods]


def test_a_metric_of_which_more_is_not_better_gives_no_ranks(runs: list[Path]) -> None:
    report = report_of(runs, "association_rate", first="class 0", second="class 1")
    assert [method.rank for method in report.methods] == [None] * 3
    row = value(runs[0], "association_rate", {"first": "class 0", "second": "class 1"})
    [good] = [method for method in report.methods if method.method == "good"]
    assert good.shown.value == pytest.approx(row.value)
    assert report.metric_parameters == {"first": "class 0", "second": "class 1"}
    tables = study_tables(report)
    assert "rank" not in tables[0].head
    assert metric_specs()["association_rate"].verdict(0.5) == "they differ"


def test_what_a_run_lacks_is_said(runs: list[Path]) -> None:
    with refused("'shape'"):
        report_of(runs, "shape_bias")
    with refused("rater"):
        report_of(runs, "error_consistency")
    folder = store_study(runs[0].parent, runs)
    ended = bench("study", folder.name, "--show", "--results", runs[0].parent, "--set", "a=1")
    assert ended.refuses("'a'")


def test_a_metric_without_values_of_the_images_is_refused(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "metric_parts", lambda *_: MetricParts(0.5, None, "bootstrap", 45))
    with refused("AUROC", "--metric auroc"):
        report_of(runs, "auroc")
