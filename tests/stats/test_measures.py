"""Metrics on request: of stored runs, what a run lacks, and their differences."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.recorded import N_DRAWS, record
from helpers.refusals import refused
from helpers.runs import store
from helpers.scores import LABELS, some_scores, stored
from sklearn.metrics import roc_auc_score

from bench.contracts.levels import diffusion_levels
from bench.contracts.metric import Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Floats
from bench.discovery.queries import metric_specs
from bench.errors import PluginError
from bench.reports.comparisons import compare
from bench.reports.run_metric import measure_run
from bench.reports.run_view import read_view
from bench.stats.inference.class_metrics import class_reach, image_values
from bench.stats.inference.shares import accuracy_interval
from bench.stats.inference.variance import spread
from bench.stats.metrics.metric_checks import metric_parts, metric_value
from bench.stats.metrics.metric_values import (
    MeasuredMetric,
    make_metric,
    measure,
    measured_difference,
)
from bench.store.columns import add_columns
from bench.store.folder import read_manifest
from bench.store.formats.cells import draw_table, read_cells, write_draws
from bench.store.formats.decisions import read_decisions


def one(path: Path, name: str, others: tuple[Path, ...] = (), **parameters: Any) -> MeasuredMetric:
    [(_, row)] = measure_run(read_view(path), name, parameters, others)
    assert not isinstance(row, str)
    return row


def test_auroc_of_a_stored_run_is_that_of_its_scores(tmp_path: Path) -> None:
    scores = some_scores()
    row = one(stored(tmp_path, scores), "auroc", across="softmax")
    likely = np.exp(-scores) / np.exp(-scores).sum(axis=1, keepdims=True)
    theirs = roc_auc_score(LABELS, likely, multi_class="ovr")
    assert row.value == pytest.approx(theirs) and row.interval == "influence"
    assert row.ci95 and row.ci95[0] < row.value < row.ci95[1]


def test_scores_of_a_race_are_censored(tmp_path: Path) -> None:
    draws = np.full((45, 3), 5)
    draws[7, 2] = 3
    path = stored(tmp_path, some_scores(), draws, strategy="race")
    with refused("AUROC", "race"):
        measure_run(read_view(path), "auroc", {})
    ended = bench("show", path, "--metric", "auroc")
    assert ended.refuses("censored")


def test_a_run_says_what_it_lacks(tmp_path: Path) -> None:
    path = stored(tmp_path, some_scores())
    for name, problem in (
        ("top5_accuracy", "classes"),
        ("candidate_recall", "candidate recall"),
        ("error_consistency", "--with RUN"),
        ("shape_bias", "'shape'"),
        ("auroc2", "'auroc'"),
    ):
        with refused(problem):
            measure_run(read_view(path), name, {})
    with refused("'heat'"):
        measure_run(read_view(path), "auroc", {"heat": "2"})


def test_the_five_best_need_a_sixth_class(tmp_path: Path) -> None:
    five, six = (read_view(store(tmp_path, [0, 1], [0, 1], n_classes=n)) for n in (5, 6))
    with refused("classes"):
        measure_run(five, "top5_accuracy", {})
    assert measure_run(six, "top5_accuracy", {})


def test_a_run_of_other_data_is_no_rater(tmp_path: Path) -> None:
    path = stored(tmp_path, some_scores())
    other = stored(tmp_path, some_scores(1), seed=1)
    strange = stored(tmp_path, some_scores(1), fingerprint="0" * 64)
    assert -1 <= one(path, "error_consistency", (other,)).value < 1
    assert one(path, "error_consistency", (path,)).value == 1
    with refused(strange.name):
        measure_run(read_view(path), "error_consistency", {}, (strange,))


def test_a_metric_is_shown_for_each_value_of_a_column(tmp_path: Path) -> None:
    path = stored(tmp_path, some_scores())
    manifest = read_manifest(path)
    places = {s: ("sea", "land", "")[i % 3] for i, s in enumerate(manifest.samples)}
    add_columns(path, manifest, {"place": places, "half": dict(zip(places, "ab" * 99))})  # noqa: B905
    rows = dict(measure_run(read_view(path), "accuracy", {}, by="place"))
    decided = read_decisions(path, manifest)
    assert set(rows) == {"sea", "land"}
    for place, row in rows.items():
        assert not isinstance(row, str)
        of = [places[s] == place for s in manifest.samples]
        assert row.value == decided.correct[of].mean() and row.images == 15
    shown = bench("show", path, "--metric", "accuracy", "--by", "place", "--json").json
    assert shown["sea"]["images"] == 15
    assert isinstance(
        dict(measure_run(read_view(path), "auroc", {}, by="place"))["sea"], str
    )  # of one class
    chosen = ("show", path, "--metric", "auroc", "--set", "temperature=2", "--json")
    parameters = bench(*chosen).json["parameters"]
    assert parameters == {"temperature": 2.0}
    for row in bench(*chosen, "--by", "half").json.values():
        assert row["parameters"] == parameters


class Weighted(Metric):
    """The mean of the scores of class 0, weighted by the label."""

    def image_values(self, data: MetricInput) -> Floats:
        assert data.scores is not None
        return np.clip(np.asarray(data.scores[:, 0]), 0, 1)

    def image_weights(self, data: MetricInput) -> Floats:
        return data.labels.astype(np.float64)


def some_input(seed: int = 0) -> MetricInput:
    scores = some_scores(seed)
    return MetricInput(("a", "b", "c"), LABELS, scores.argmin(axis=1), scores=scores)


def spec(**fields: Any) -> MetricSpec:
    return MetricSpec(name="mine", target=f"{__name__}:Weighted", needs=("scores",), **fields)


def test_a_weighted_mean_has_influence_values() -> None:
    data = some_input()
    _, values, method, images = metric_parts(spec(mean_over_images=True), Weighted(), data)
    assert images == 30
    assert values is not None and method == "influence"
    assert values.mean() == pytest.approx(Weighted().value(data))
    resampled = [
        Weighted().value(data.take(np.random.default_rng(i).integers(45, size=45)))
        for i in range(800)
    ]
    assert values.std() / np.sqrt(45) == pytest.approx(np.std(resampled), rel=0.15)


def test_a_metric_outside_its_range_is_its_plugins_error() -> None:
    with refused("between 0.9 and 1", kind=PluginError):
        metric_value(spec(range=(0.9, 1.0)), Weighted(), some_input())


@pytest.mark.parametrize("name", ["auroc", "average_precision", "accuracy"])
def test_a_difference_of_a_metric_is_tested_on_the_same_images(name: str) -> None:
    metric = metric_specs()[name]
    made, a, b = make_metric(metric), some_input(), some_input(3)
    worse = MetricInput(a.classes, a.labels, (a.labels + 1) % 3, scores=-some_scores())
    same, far = (measured_difference(metric, made, a, other) for other in (a, worse))
    low, high = same.difference.interval
    assert same.difference.p == 1 and low <= 0 <= high
    assert (far.difference.p or 0) < 1e-3 and far.difference.interval[1] < 0
    low, high = measured_difference(metric, made, a, b).difference.interval
    assert low < made.value(b) - made.value(a) < high


def test_intervals_of_means_over_images_are_wilsons() -> None:
    data = some_input()
    row = measure(metric_specs()["accuracy"], make_metric(metric_specs()["accuracy"]), data, {})
    right = int((data.predictions == data.labels).sum())
    assert row.ci95 == accuracy_interval(right, 45) and row.interval == "images"


def test_scores_of_many_classes_need_the_errors(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(45, 12))
    path = stored(tmp_path, scores, n_classes=12)
    with refused("10 best of 12"):
        measure_run(read_view(path), "auroc", {})


def test_auroc_of_twelve_classes_is_that_of_the_kept_errors(tmp_path: Path) -> None:
    path = record(tmp_path, informative=(0, 10), classes=12)
    weights = np.linspace(1, 3, N_DRAWS)
    levels = diffusion_levels(np.linspace(0.99, 0.01, N_DRAWS), "epsilon")
    write_draws(path, draw_table(levels, np.arange(N_DRAWS), weights))
    decided = read_decisions(path, read_manifest(path))
    errors = [
        read_cells(path / "errors", name, (12, N_DRAWS)) for name in decided.sample_ids.to_pylist()
    ]
    scores = (np.array(errors, dtype=np.float64) * weights).sum(axis=2) / weights.sum()
    relative, labels = scores.mean(axis=1)[:, None] - scores, decided.labels
    areas = [roc_auc_score(labels == c, relative[:, c]) for c in sorted(set(labels.tolist()))]
    assert one(path, "auroc").value == pytest.approx(np.mean(areas))
    assert 0.6 < np.mean(areas) < 1


def test_two_runs_are_compared_in_a_metric_on_request(tmp_path: Path) -> None:
    a = stored(tmp_path, some_scores())
    b = stored(tmp_path, -some_scores(), seed=1)
    done = bench("compare", a, b, "--metric", "auroc", "--set", "across=softmax", "--json").json
    values = [one(path, "auroc", across="softmax").value for path in (a, b)]
    assert [done["tested"]["a"], done["tested"]["b"]] == pytest.approx(values)
    assert done["tested"]["difference"]["method"] == "influence" and done["regression"]
    assert "z test of influence values" in bench("compare", a, b, "--metric", "auroc").out
    ended = bench("compare", a, b, "--metric", "auroc", "--sequential")
    assert ended.refuses("AUROC")


def test_a_mean_over_images_is_compared_in_random_order(tmp_path: Path) -> None:
    a, b = (stored(tmp_path, some_scores(seed), seed=seed) for seed in (0, 1))
    for path in (a, b):
        manifest = read_manifest(path)
        names = [f"class {label}" for label in LABELS]
        add_columns(path, manifest, {"classes": dict(zip(manifest.samples, names, strict=True))})
    of_metric, of_accuracy = (
        compare(a, b, metric, sequential=True) for metric in ("multilabel_accuracy", "accuracy")
    )
    assert of_metric.tested is not None and of_metric.tested.difference.method == "mcnemar"
    assert of_metric.tested.difference == of_accuracy.difference
    assert of_metric.sequential == of_accuracy.sequential is not None


def few(images: int, classes: int = 5, never: bool = False) -> MetricInput:
    """Return decisions, 80 % right, of a class with `images` images and others with 30 or more."""
    labels = np.repeat(np.arange(classes), [images, *[max(30, images)] * (classes - 1)])
    wrong = np.random.default_rng(3).random(len(labels)) < 0.2
    predictions = np.where(wrong, (labels + 1) % classes, labels)
    if never:
        predictions[predictions == 0] = 1
    return MetricInput(tuple(map(str, range(classes))), labels, predictions)


@pytest.mark.parametrize(
    ("name", "images", "classes", "none"),
    [
        ("balanced_accuracy", 1, 5, None),
        ("accuracy", 3, 5, None),
        ("f1_macro", 9, 5, "9 images"),
        ("f1_macro", 1, 5, "1 image"),
        ("f1_weighted", 9, 5, "9 images"),
        ("f1_weighted", 10, 5, None),
        ("f1_macro", 10, 50, None),
        ("precision_macro", 20, 5, "20 images"),
        ("precision_weighted", 99, 5, "99 images"),
        ("precision_macro", 100, 20, None),
        ("precision_weighted", 100, 21, "20 classes"),
    ],
)
def test_an_average_over_few_images_of_a_class_says_why_it_has_no_interval(
    name: str, images: int, classes: int, none: str | None
) -> None:
    spec, data = metric_specs()[name], few(images, classes)
    row = measure(spec, make_metric(spec), data, {})
    assert (row.ci95 is None) == (row.caveat is not None) == (none is not None)
    assert row.caveat is None or (row.caveat.startswith("none") and f"{none}" in row.caveat)
    assert row.ci95 is None or row.ci95[0] < row.value < row.ci95[1]
    assert row.never_predicted is None
    unseen = measure(spec, make_metric(spec), few(images, classes, never=True), {})
    assert unseen.never_predicted == (1 if name.startswith("precision") else None)


@pytest.mark.parametrize(("classes", "images"), [(21, 3), (10, 3), (21, 2), (3, 10)])
def test_the_interval_of_a_balanced_accuracy_covers_with_few_images(
    classes: int, images: int
) -> None:
    spec, rng = metric_specs()["balanced_accuracy"], np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), images)
    odds, covered = rng.uniform(0.6, 1.0, classes), 0
    for _ in range(400):
        wrong = rng.random(len(labels)) >= odds[labels]
        predictions = np.where(wrong, (labels + 1) % classes, labels)
        values = image_values(spec, labels, predictions)[None, None]
        ends = spread(values, influence=True, classes=labels).interval
        covered += ends is not None and ends[0] <= odds.mean() <= ends[1]
    assert 0.93 <= covered / 400 <= 0.995


def test_a_class_of_one_image_has_the_variance_of_the_others() -> None:
    """And if all classes have one, the balanced accuracy is an accuracy of as many images."""
    spec, labels = metric_specs()["balanced_accuracy"], np.repeat(np.arange(21), [1, *[20] * 20])
    right = np.random.default_rng(0).random(len(labels)) < 0.8
    right[0] = True
    values = image_values(spec, labels, np.where(right, labels, (labels + 1) % 21))
    several = class_reach(values[1:], labels[1:])
    assert class_reach(values, labels) > 1.3 * several
    alone = np.arange(21)
    values = image_values(spec, alone, np.where(alone < 16, alone, 0))[None, None]
    found = spread(values, influence=True, classes=alone).interval
    assert found == pytest.approx(accuracy_interval(16, 21))
