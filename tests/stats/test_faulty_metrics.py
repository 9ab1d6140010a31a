"""A plugin's metric that fails is named wherever it is computed, and ends no run."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.matrix import matrix
from helpers.opened_here import opened_here as opened_here  # a report opens the data
from helpers.refusals import refused, warned

from bench.contracts.metric import Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.discovery.loading import load_plugins
from bench.errors import PluginError, UserError
from bench.stats.metrics.metric_checks import metric_parts
from bench.stats.metrics.metric_values import make_metric, measure

RUN = ("run", "digits", "--backbone", "random", "--limit", "20", "--json")


class Faulty(Metric):
    """A metric that is right, apart from what a test puts in the place of a method."""

    def value(self, data: MetricInput) -> float:
        return float((data.predictions == data.labels).mean())

    def influence(self, data: MetricInput) -> Any:
        return (data.predictions == data.labels).astype(float)


class FaultyMean(Metric):
    """A mean over images that is right, apart from what a test puts in the place of a method."""

    def image_values(self, data: MetricInput) -> Any:
        return (data.predictions == data.labels).astype(float)


def raises(error: BaseException) -> Any:
    def method(self: Metric, data: MetricInput) -> Any:
        raise error

    return method


def returns(value: Any) -> Any:
    return lambda self, data: value


def spoils(self: Metric, data: MetricInput) -> Any:
    data.labels[:] = data.predictions
    data.predictions[:] = -1
    return None  # not reached: the arrays are read-only


def by_place(self: Metric, data: MetricInput) -> Any:
    """Return image values that belong to places instead of images; their mean is right."""
    return np.sort(data.predictions == data.labels).astype(float)


def depends_on_order(self: Metric, data: MetricInput) -> float:
    return float(data.labels @ np.arange(len(data))) / (10 * len(data) ** 2)


CALLS = count()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


# What a metric does → its method, and what stands in the method's place.
FAULTS: dict[str, tuple[str, Any]] = {
    **{
        f"value {name}": ("value", method)
        for name, method in {
            "raises": raises(RuntimeError("broken")),
            "exits": raises(SystemExit(0)),
            "is None": returns(None),
            "is text": returns("0.5"),
            "is complex": returns(0.5 + 0.1j),
            "is NaN": returns(float("nan")),
            "is infinite": returns(np.inf),
            "is out of range": returns(1.5),
            "is several": returns([0.5, 0.5]),
            "is ragged": returns([[0.5], [0.5, 0.5]]),
            "is unprintable": returns(Unprintable()),
            "spoils the data": spoils,
            "depends on the order": depends_on_order,
            "changes with every call": lambda self, data: 1 / (2 + next(CALLS)),
            "is no method": 3,
        }.items()
    },
    **{
        f"image_values {name}": ("image_values", method)
        for name, method in {
            "raises": raises(KeyError("column")),
            "is None": returns(None),
            "is too short": lambda self, data: np.ones(len(data) - 1),
            "is too long": lambda self, data: np.ones(len(data) + 1),
            "is one number": returns(1.0),
            "is text": lambda self, data: np.full(len(data), "1"),
            "is complex": lambda self, data: np.ones(len(data)) * 1j,
            "is NaN": lambda self, data: np.full(len(data), np.nan),
            "is out of range": lambda self, data: np.full(len(data), 2.0),
            "spoils the data": spoils,
        }.items()
    },
    **{
        f"image_weights {name}": ("image_weights", method)
        for name, method in {
            "is None": returns(None),
            "is too short": lambda self, data: np.ones(len(data) - 1),
            "is NaN": lambda self, data: np.full(len(data), np.nan),
            "is negative": lambda self, data: -np.ones(len(data)),
        }.items()
    },
    "it cannot be made": ("__init__", returns(3)),
    "it rejects its defaults": ("__init__", raises(ValueError("no"))),
    "its columns are no names": ("columns", 3),
}
INFLUENCES: dict[str, Any] = {
    "raises": raises(RuntimeError("broken")),
    "is too short": lambda self, data: np.ones(len(data) - 1),
    "is text": returns("x"),
    "is NaN": lambda self, data: np.full(len(data), np.nan),
    "is complex": lambda self, data: np.ones(len(data)) * 1j,
    "depends on the order": lambda self, data: np.arange(float(len(data))),
    "spoils the data": spoils,
}


def register(monkeypatch: pytest.MonkeyPatch, method: str, fault: Any) -> None:
    """Register the metric `faulty` with something else in the place of a method."""
    mean = method.startswith("image_")
    monkeypatch.setattr(FaultyMean if mean else Faulty, method, fault, raising=False)
    target = f"{__name__}:{'FaultyMean' if mean else 'Faulty'}"
    spec = MetricSpec(name="faulty", summary="Faulty.", target=target, mean_over_images=mean)
    monkeypatch.setitem(load_plugins().metrics._specs, "faulty", spec)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Two finished runs and a study of them, made without the metric."""
    results = tmp_path_factory.mktemp("results")
    file = results / "small.toml"
    file.write_text('dataset = "digits"\nbackbone = "random"\nlimit = 20\nparams.seed = [0, 1]\n')
    done = bench("study", file, "--results", results, "--json")
    assert done.code == 0, done.err
    return results, [row["run_id"] for row in done.json["rows"]]


def surfaces(stored: tuple[Path, list[str]], out: Path) -> dict[str, tuple[object, ...]]:
    """Return the commands that show metrics of stored runs."""
    one, other = stored[1]
    return {
        "show": ("show", one),
        "statistics": ("show", one, "--statistics"),
        "compare": ("compare", one, other),
        "study": ("study", "small", "--show"),
        "leaderboard": ("leaderboard",),
        "report": ("report", one, "--out", out / "page.html"),
    }


@pytest.mark.parametrize("fault", matrix(FAULTS, list(FAULTS)[::2]))
def test_a_run_ends_with_its_summary_and_a_warning(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = bench(*RUN, "--results", tmp_path / "usual").json["metrics"]
    register(monkeypatch, *FAULTS[fault])
    done = bench(*RUN, "--results", tmp_path)
    assert done.code == 0, done.err
    named = [line for line in done.err.splitlines() if "'faulty'" in line]
    assert len(named) == 1 and "left out of the summary" in named[0], done.err
    (summary,) = tmp_path.glob("*/summary.json")
    assert json.loads(summary.read_text())["metrics"] == usual
    again = bench(*RUN, "--results", tmp_path)
    assert (again.code, again.json["resumed"]) == (0, "complete")


# Every fault is met by a run above; that it is met on every surface, by some of them.
@pytest.mark.parametrize("fault", matrix(FAULTS, list(FAULTS)[::16]))
def test_it_is_an_error_where_it_is_asked_for_and_nothing_elsewhere(
    fault: str, stored: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, *FAULTS[fault])
    for name, command in surfaces(stored, tmp_path).items():
        shown = bench(*command, "--results", stored[0])
        assert shown.code == 0, f"{name}: {shown.err}"
        if name != "statistics":
            asked = bench(*command, "--metric", "faulty", "--results", stored[0])
            assert asked.refuses("'faulty'"), f"{name}: {asked.err}"
            assert "Unexpected" not in asked.err and len(asked.err.splitlines()) == 1


@pytest.mark.parametrize("fault", INFLUENCES)
def test_influence_values_are_checked(
    fault: str, stored: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "influence", INFLUENCES[fault])
    for name, command in surfaces(stored, tmp_path).items():
        if name not in ("statistics", "leaderboard"):  # which shows the value alone
            asked = bench(*command, "--metric", "faulty", "--results", stored[0])
            assert asked.refuses("'faulty'"), f"{name}: {asked.err}"
            assert "influence" in asked.err


def test_weights_have_a_positive_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "image_weights", lambda self, data: np.zeros(len(data)))
    spec = load_plugins().metrics.get("faulty")
    with refused("weight", kind=(PluginError, UserError)):
        metric_parts(spec, make_metric(spec), decisions(40))


def test_image_values_must_follow_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "image_values", by_place)
    spec = load_plugins().metrics.get("faulty")
    with refused("order", kind=PluginError):
        metric_parts(spec, make_metric(spec), decisions(40))


def decisions(n: int) -> MetricInput:
    """Return decisions on images of three classes, of which two thirds are right."""
    labels = np.arange(n) % 3
    wrong = np.random.default_rng(0).random(n) < 1 / 3
    return MetricInput(("a", "b", "c"), labels, np.where(wrong, (labels + 1) % 3, labels))


@pytest.mark.parametrize(
    ("factor", "shift", "n", "method", "warning"),
    [
        (1.0, 0.0, 60, "influence", None),
        (1.0, 0.3, 60, "influence", "only their deviations"),
        (1.2, 0.0, 60, "influence", None),
        (1.8, 0.0, 60, "bootstrap", "standard error"),
        (0.5, 0.0, 60, "bootstrap", "standard error"),
        (1.8, 0.0, 29, "influence", None),
    ],
)
def test_influence_values_that_cannot_be_right_are_not_used(
    factor: float,
    shift: float,
    n: int,
    method: str,
    warning: str | None,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Only deviations are used, and only if their standard error is near a bootstrap's."""

    def influence(self: Metric, data: MetricInput) -> Any:
        right = (data.predictions == data.labels).astype(float)
        return shift + right.mean() + factor * (right - right.mean())

    register(monkeypatch, "influence", influence)
    spec, data = load_plugins().metrics.get("faulty"), decisions(n)
    parts = metric_parts(spec, make_metric(spec), data)
    assert parts.value == (data.predictions == data.labels).mean() and parts.basis == method
    assert parts.values is None or parts.values.mean() == pytest.approx(parts.value)
    said = [str(one.message) for one in recwarn]
    assert bool(said) == (warning is not None)
    assert all("'faulty'" in text and str(warning) in text for text in said)
    row = measure(spec, make_metric(spec), data, {})
    assert row.interval == method and row.ci95 and row.ci95[0] < row.value < row.ci95[1]


@pytest.mark.parametrize("classes", [2, 1000])
def test_influence_values_are_checked_on_a_part_of_large_data(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def influence(self: Metric, data: MetricInput) -> Any:
        sizes.append(len(data))
        right = (data.predictions == data.labels).astype(float)
        return right.mean() + 3 * (right - right.mean())

    register(monkeypatch, "influence", influence)
    labels = np.arange(60_000) % classes
    wrong = np.random.default_rng(0).random(60_000) < 0.3
    names = tuple(map(str, range(classes)))
    data = MetricInput(names, labels, np.where(wrong, (labels + 1) % classes, labels))
    spec = load_plugins().metrics.get("faulty")
    with warned("bootstrap"):
        assert metric_parts(spec, make_metric(spec), data).basis == "bootstrap"
    assert 30 <= sizes[-1] <= 50_000 // classes


def test_arrays_are_read_only_however_they_are_reached() -> None:
    columns = {"place": np.array(["sea"] * 40)}
    data = replace(decisions(40), columns=columns, raters={"one": np.zeros(40, dtype=np.int64)})
    for part in (data, data.take(np.arange(5))):
        arrays = [part.labels, part.predictions, part.columns["place"], part.raters["one"]]
        assert not any(array.flags.writeable for array in arrays)
    assert columns["place"].flags.writeable, "only the view that a metric has is read-only"
