"""Metrics as means over images and under exchange: against sklearn, scipy and simulation."""

from typing import Any

import click
import numpy as np
import pytest
from helpers.matrix import matrix
from helpers.refusals import refused
from scipy import stats
from sklearn import metrics

from bench.cli import study
from bench.contracts.metric import MetricInput
from bench.contracts.strategy import Ints
from bench.discovery.queries import metric_specs
from bench.stats.inference import class_metrics
from bench.stats.inference.class_metrics import (
    MIN_F1,
    class_average,
    exchange_p,
    image_values,
    small_sample_bias,
)
from bench.stats.inference.difference_tests import Answers, compare_all
from bench.stats.metrics.metric_values import make_metric, measure

KNOWN: dict[str, Any] = {
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "f1_macro": lambda labels, said: metrics.f1_score(labels, said, average="macro"),
    "f1_weighted": lambda labels, said: metrics.f1_score(labels, said, average="weighted"),
}
METRICS = tuple(KNOWN)
F1_MACRO = metric_specs()["f1_macro"]
OTHERS = METRICS[1:]
SHARES = (0.6, 0.3, 0.1)  # of the classes


def answers(rng: np.random.Generator, labels: Ints, right: float) -> Ints:
    """Return predictions that are right so often, and else of any class."""
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, 3, len(labels)))


def drawn(rng: np.random.Generator, n: int) -> Ints:
    return rng.choice(3, size=n, p=SHARES)


def test_the_command_takes_every_metric_but_those_that_need_a_rater() -> None:
    [option] = [one for one in study.study_command.params if one.name == "metric"]
    context = click.Context(study.study_command)
    for name, metric in metric_specs().items():
        if "rater" not in metric.needs:
            assert option.process_value(context, name) == name
    with refused("bench show RUN --metric error_con"):
        option.process_value(context, "error_consistency")


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_over_images_is_sklearns_metric(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(3), drawn(rng, 57)])
    said = [answers(rng, labels, right) for right in (0.2, 0.9)]
    for one in said:
        values = image_values(metric_specs()[metric], labels, one)
        assert values.shape == (60,) and values.mean() == pytest.approx(KNOWN[metric](labels, one))


@pytest.mark.parametrize("metric", METRICS)
def test_an_image_that_failed_is_wrong_and_of_no_class(metric: str) -> None:
    labels = np.array([0, 0, 1, 1])
    value = image_values(metric_specs()[metric], labels, np.array([0, -1, 1, 1])).mean()
    recalls, f1 = (0.5, 1.0), (2 / 3, 1.0)
    assert value == pytest.approx(np.mean(f1 if metric.startswith("f1") else recalls))


@pytest.mark.parametrize("metric", OTHERS)
def test_the_spread_over_images_is_that_of_other_samples(metric: str) -> None:
    rng, n = np.random.default_rng(1), 300
    stated, seen = [], []
    for _ in range(400):
        labels = drawn(rng, n)
        said = answers(rng, labels, 0.6)
        values = image_values(metric_specs()[metric], labels, said)
        stated.append(values.var() / n)
        seen.append(values.mean())
    assert np.sqrt(np.mean(stated)) == pytest.approx(np.std(seen), rel=0.12)


@pytest.mark.parametrize(
    "metric", [OTHERS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in OTHERS[1:])]
)
def test_the_exchange_is_scipys(metric: str) -> None:
    rng = np.random.default_rng(2)
    labels = np.concatenate([np.arange(3), drawn(rng, 37)])
    a, b = answers(rng, labels, 0.5), answers(rng, labels, 0.75)

    def difference(x: Ints, y: Ints) -> float:
        return float(KNOWN[metric](labels, y.astype(int)) - KNOWN[metric](labels, x.astype(int)))

    known = stats.permutation_test(
        (a, b), difference, permutation_type="samples", n_resamples=600, rng=3
    )
    spec = metric_specs()[metric]
    assert exchange_p(spec, labels, a, b) == pytest.approx(known.pvalue, abs=0.05)
    assert exchange_p(spec, labels, a, a.copy()) == 1.0


def test_of_several_runs_their_mean_counts() -> None:
    """The same run twice is one run."""
    rng = np.random.default_rng(4)
    labels = drawn(rng, 60)
    a, b, c = (answers(rng, labels, right) for right in (0.5, 0.8, 0.6))
    once = exchange_p(F1_MACRO, labels, a, b)
    assert exchange_p(F1_MACRO, labels, np.stack([a, a]), b) == pytest.approx(once, abs=0.01)
    assert exchange_p(F1_MACRO, labels, np.stack([a, c]), b) != once


def test_images_that_belong_together_are_exchanged_together() -> None:
    """Ten copies of each image say no more than the image does."""
    rng = np.random.default_rng(5)
    labels = drawn(rng, 30)
    a, b = answers(rng, labels, 0.4), answers(rng, labels, 0.7)
    once = exchange_p(F1_MACRO, labels, a, b)
    times = [np.repeat(one, 10) for one in (labels, a, b)]
    copies = exchange_p(F1_MACRO, times[0], times[1], times[2])
    whole = exchange_p(F1_MACRO, times[0], times[1], times[2], np.repeat(np.arange(30), 10))
    assert whole == pytest.approx(once, abs=0.015) and copies < whole / 2


@pytest.mark.parametrize("metric", matrix(["balanced_accuracy", "f1_macro"], ["f1_macro"]))
def test_intervals_cover_and_the_test_errs_as_often_as_it_says(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_metrics, "PERMUTATIONS", 199)
    rng, studies, spec = np.random.default_rng(6), 200, metric_specs()[metric]
    covered = found = 0
    for _ in range(studies):
        labels = drawn(rng, 200)
        methods = []
        for name in "ab":
            plane = answers(rng, labels, 0.7)
            values = image_values(spec, labels, plane)
            methods.append(Answers(name, plane[None, None], values[None, None]))
        one = compare_all(methods, labels, spec)[0].difference
        covered += one.interval[0] <= 0 <= one.interval[1]
        found += one.significant
        assert one.significant or one.interval[0] <= 0 <= one.interval[1]
    assert 0.90 <= covered / studies <= 0.995
    assert 0.01 <= found / studies <= 0.10


@pytest.mark.parametrize("metric", ["f1_macro", "f1_weighted", "precision_macro"])
def test_the_bias_of_an_average_of_ratios_is_what_samples_differ_from_all_images(
    metric: str,
) -> None:
    """Of classes with other accuracies and other numbers of images, some errors drawn to one."""
    spec, rng = metric_specs()[metric], np.random.default_rng(1)
    sizes = np.array([8, 8, 9, 10, 12, 16])
    labels, odds = np.repeat(np.arange(6), sizes), np.full((6, 6), 0.03)
    odds[:, 1] += 0.4
    odds[np.arange(6), np.arange(6)] += 1 - odds.sum(axis=1)
    expected = odds * sizes[:, None]
    truth = class_average(spec, np.diag(expected), sizes.astype(float), expected.sum(axis=0))
    values, biases = [], []
    for _ in range(3000):
        drawn = (rng.random(len(labels))[:, None] > odds.cumsum(axis=1)[labels]).sum(axis=1)
        values.append(image_values(spec, labels, drawn).mean())
        biases.append(small_sample_bias(spec, labels, drawn))
    error = np.std(values) / len(values) ** 0.5
    seen = np.mean(values) - truth
    assert abs(seen) > 3 * error
    assert np.mean(biases) == pytest.approx(seen, abs=2.5 * error + 0.15 * abs(seen))


@pytest.mark.parametrize("metric", ["f1_macro", "f1_weighted"])
@pytest.mark.parametrize("accuracy", [0.4, 0.85])
def test_the_interval_of_f1_covers_if_errors_of_many_classes_are_drawn_to_one(
    metric: str, accuracy: float
) -> None:
    """At the fewest images of a class that have one: 100 classes of 10 images."""
    spec, rng = metric_specs()[metric], np.random.default_rng(0)
    own = np.clip(rng.normal(accuracy, 0.4 * (1 - accuracy), 100), 0.05, 0.995)
    made = make_metric(spec)
    labels, names = np.repeat(np.arange(100), MIN_F1), tuple(map(str, range(100)))
    false = (1 - own[1:]).sum()
    predicted = np.array([own[0] + false, *own[1:]])
    truth = float(np.mean(2 * own / (1 + predicted)))
    covered = 0
    for _ in range(300):
        wrong = np.where(labels == 0, -1, 0)  # images of the first class fail, or are right
        said = np.where(rng.random(len(labels)) < own[labels], labels, wrong)
        ends = measure(spec, made, MetricInput(names, labels, said), {}).ci95
        assert ends is not None
        covered += ends[0] <= truth <= ends[1]
    assert covered / 300 >= 0.92
