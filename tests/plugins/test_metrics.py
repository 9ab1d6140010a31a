"""The shipped metrics, each computed again by another route."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers.refusals import refused
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from bench.contracts.metric import NO_ANSWER, Metric, MetricInput
from bench.discovery.queries import metric_specs
from bench.errors import BenchWarning, PluginError
from bench.stats.inference.shares import Estimate, accuracy_interval
from bench.stats.metrics.metric_checks import metric_parts
from bench.stats.metrics.metric_values import make_metric, measure, measured_difference
from bench.testing import MetricContract
from bench_plugins.metrics.measures import (
    AssociationRate,
    Auroc,
    AveragePrecision,
    ErrorConsistency,
    MultiLabelAccuracy,
    ShapeBias,
)

CLASSES = ("bear", "cat", "dog")


def some_input(n: int = 60, seed: int = 1, **fields: Any) -> MetricInput:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    scores = rng.normal(size=(n, 3)).round(1) + 5 * rng.random((n, 1))  # with ties
    scores[np.arange(n), labels] -= 1
    return MetricInput(CLASSES, labels, scores.argmin(axis=1), scores=scores, **fields)


def value_of(name: str, data: MetricInput, **parameters: Any) -> float:
    spec = metric_specs()[name]
    return make_metric(spec, parameters).value(data)


def relative(data: MetricInput, across: str) -> Any:
    from scipy.special import softmax

    assert data.scores is not None
    if across == "softmax":
        return softmax(-data.scores / 0.5, axis=1)
    return -(data.scores - data.scores.mean(axis=1)[:, None])


@pytest.mark.parametrize("across", ["difference", "softmax"])
def test_auroc_is_the_share_of_pairs_in_order(across: str) -> None:
    data = some_input()
    scores, areas = relative(data, across), []
    for label in range(3):
        above = scores[data.labels == label, label][:, None]
        below = scores[data.labels != label, label][None, :]
        areas.append(((above > below) + 0.5 * (above == below)).mean())
    assert value_of("auroc", data, across=across, temperature=0.5) == pytest.approx(np.mean(areas))


def test_average_precision_is_the_mean_precision_at_each_positive() -> None:
    data = some_input()
    scores, values = relative(data, "difference"), []
    for label in range(3):
        score, hit = scores[:, label], data.labels == label
        values.append(np.mean([hit[score >= at].mean() for at in score[hit]]))
    assert value_of("average_precision", data) == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("name", "theirs"), [("auroc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_influence_is_the_derivative_in_an_images_weight(
    name: str, theirs: Callable[..., float]
) -> None:
    data = some_input(30)
    metric = make_metric(metric_specs()[name])
    influence = metric.influence(data)
    assert influence is not None
    scores, step = relative(data, "difference"), 1e-6

    def weighted(weights: Any) -> float:
        of_classes = [
            theirs(data.labels == c, scores[:, c], sample_weight=weights) for c in range(3)
        ]
        return float(np.mean(of_classes))

    assert influence.mean() == pytest.approx(metric.value(data))
    for image in range(6):
        weights = np.ones(30)
        weights[image] += step
        slope = (weighted(weights) - weighted(np.ones(30))) / step
        assert influence[image] == pytest.approx(metric.value(data) + 30 * slope, abs=1e-4)


def test_a_class_without_images_is_left_out_and_images_of_one_class_have_no_auroc() -> None:
    data = some_input()
    without = data.take(np.flatnonzero(data.labels != 0))
    assert 0.5 < value_of("auroc", without) < 1
    with refused("class", kind=ValueError):
        value_of("auroc", data.take(np.flatnonzero(data.labels == 0)))


def test_multi_label_accuracy_counts_any_true_class_and_leaves_images_without_one_out() -> None:
    data = MetricInput(
        CLASSES,
        labels=np.array([0, 1, 2, 0]),
        predictions=np.array([1, 1, 0, -1]),
        columns={"classes": np.array(["bear|cat", "dog", "", "bear"])},
    )
    assert value_of("multilabel_accuracy", data) == 1 / 3
    spec = metric_specs()["multilabel_accuracy"]
    assert measure(spec, make_metric(spec), data, {}).images == 3
    with refused("'lion'", kind=ValueError):
        value_of("multilabel_accuracy", MetricInput(*_lion()), column="classes")


def _lion() -> tuple[Any, ...]:
    rest: tuple[Any, ...] = (None, None, None, None, {"classes": np.array(["lion"])})
    return (CLASSES, np.array([0]), np.array([0]), *rest)


def test_shape_bias_is_shape_over_shape_and_texture() -> None:
    data = MetricInput(
        CLASSES,
        labels=np.zeros(6, dtype=np.int64),
        predictions=np.array([0, 1, 0, 2, -1, 0]),
        columns={
            "shape": np.array(["bear", "bear", "bear", "bear", "bear", "bear"]),
            "texture": np.array(["cat", "cat", "dog", "cat", "cat", "bear"]),
        },
    )
    assert value_of("shape_bias", data) == pytest.approx(2 / 3)  # two shapes, one texture
    parts = metric_parts(*_made("shape_bias"), data)
    assert parts.values is not None and parts.basis == "influence"
    assert parts.value == pytest.approx(2 / 3) == parts.values.mean()


@pytest.mark.parametrize("counted", [1, 4, 10, 30])
def test_images_that_a_mean_leaves_out_make_no_interval_narrower(counted: int) -> None:
    """A shape bias of 100 % of few images among many others; in another run it is 0 %."""
    names = {
        name: np.array([name_] * 200) for name, name_ in (("shape", "bear"), ("texture", "cat"))
    }
    all_shape, all_texture = (
        MetricInput(CLASSES, np.zeros(200, int), np.repeat([answer, 2], [counted, 200 - counted]))
        for answer in (0, 1)
    )
    a, b = (replace(data, columns=names) for data in (all_shape, all_texture))
    row = measure(*_made("shape_bias"), a, {})
    assert (row.images, row.value) == (counted, 1.0)
    assert row.ci95 == accuracy_interval(counted, counted)
    low, high = (Estimate(0.0, accuracy_interval(0, counted)) - Estimate(1.0, row.ci95)).interval
    tested = measured_difference(*_made("shape_bias"), a, b).difference
    assert tested.interval == pytest.approx((low, high)) and tested.p is None
    same = measured_difference(*_made("shape_bias"), a, a).difference
    assert same.p == (1.0 if counted >= 5 else None) and same.interval[0] < 0 < same.interval[1]
    assert tested.method == ("influence" if counted >= 10 else "approximate")


def _made(name: str, **parameters: Any) -> tuple[Any, Metric]:
    spec = metric_specs()[name]
    return spec, make_metric(spec, parameters)


@pytest.mark.parametrize("saw", [60, 41])
def test_error_consistency_is_kappa_of_being_right(saw: int) -> None:
    rng = np.random.default_rng(0)
    data = some_input()
    answers = np.where(rng.random(60) < 0.7, data.labels, (data.labels + 1) % 3)
    answers[saw:] = NO_ANSWER
    seen = answers != NO_ANSWER
    theirs = cohen_kappa_score(
        (data.predictions == data.labels)[seen], (answers == data.labels)[seen]
    )
    rated = MetricInput(CLASSES, data.labels, data.predictions, raters={"one": answers})
    assert value_of("error_consistency", rated) == pytest.approx(theirs)


def test_error_consistency_of_people_resamples_them_too() -> None:
    rng = np.random.default_rng(0)
    data = some_input(90)
    same = np.where(data.predictions == data.labels, data.labels, (data.labels + 1) % 3)
    random = np.where(rng.random(90) < 0.6, data.labels, (data.labels + 1) % 3)
    of_one, of_two = (
        MetricInput(CLASSES, data.labels, data.predictions, raters=raters)
        for raters in ({"a": same}, {"a": same, "b": random})
    )
    alone = measure(*_made("error_consistency"), of_one, {})
    both = measure(*_made("error_consistency"), of_two, {})
    assert alone.value == 1 and alone.raters is None and alone.interval == "bootstrap"
    assert both.raters is not None and both.raters["a"] == 1 and both.raters["b"] < 0.5
    assert both.value == pytest.approx(np.mean(list(both.raters.values())))
    assert both.ci95 is not None
    assert both.ci95[0] < both.raters["b"] + 0.1 and both.ci95[1] == 1  # either rater twice


def test_association_rate_counts_the_decisions_for_either_set() -> None:
    data = MetricInput(CLASSES, np.zeros(5, dtype=np.int64), np.array([0, 0, 1, 2, -1]))
    assert value_of("association_rate", data, first=("bear",)) == 2 / 4
    assert value_of("association_rate", data, first=("bear",), second=("cat",)) == 2 / 3
    for parameters, problem in (
        ({}, "first"),
        ({"first": ("lion",)}, "'lion'"),
    ):
        with refused(problem, kind=ValueError):
            value_of("association_rate", data, **parameters)
    with refused("'bear'"):
        _made("association_rate", first=("bear",), second=("bear",))


class TestAuroc(MetricContract):
    make = staticmethod(Auroc)


class TestAveragePrecision(MetricContract):
    def make(self) -> AveragePrecision:
        return AveragePrecision(across="softmax")


class TestErrorConsistency(MetricContract):
    range = (-1.0, 1.0)

    make = staticmethod(ErrorConsistency)


class TestAssociationRate(MetricContract):
    mean_over_images = True

    def make(self) -> AssociationRate:
        return AssociationRate(first=("class 0", "class 1"))


class TestMultiLabelAccuracy(MetricContract):
    mean_over_images = True
    columns: ClassVar[Mapping[str, Sequence[str]]] = {"classes": ("class 0|class 1", "", "class 2")}

    make = staticmethod(MultiLabelAccuracy)


class TestShapeBias(MetricContract):
    mean_over_images = True
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "shape": ("class 0", "class 1"),
        "texture": ("class 1", "class 2", "class 3"),
    }

    make = staticmethod(ShapeBias)


class InOrder(MetricContract):
    """A metric that depends on the order of the images."""

    def make(self) -> Any:
        class First:
            def value(self, data: MetricInput) -> float:
                return float(data.labels @ np.arange(len(data))) / len(data) ** 3

        return First()


class Overstated(MetricContract):
    """A metric whose influence values are too large."""

    def make(self) -> Any:
        class Thrice:
            def value(self, data: MetricInput) -> float:
                return float((data.predictions == data.labels).mean())

            def influence(self, data: MetricInput) -> Any:
                right = (data.predictions == data.labels).astype(float)
                return right.mean() + 3 * (right - right.mean())

        return Thrice()


@pytest.mark.parametrize(
    ("contract", "problem"),
    [(InOrder(), "order"), (Overstated(), "bootstrap")],
    ids=lambda given: type(given).__name__,
)
def test_a_metric_that_does_not_keep_the_contract_fails(
    contract: MetricContract, problem: str
) -> None:
    data, metric, spec = (
        getattr(MetricContract, name).__wrapped__(contract) for name in ("data", "metric", "spec")
    )
    with refused(problem, kind=(PluginError, BenchWarning)), warnings.catch_warnings():
        warnings.simplefilter("error")
        contract.test_a_value_is_in_its_range_whatever_the_order(spec, metric, data)
        contract.test_values_of_images_give_the_metric_and_its_error(spec, metric, data)
