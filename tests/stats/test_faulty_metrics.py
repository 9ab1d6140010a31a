"""A plugin's metric that fails is named wherever it is computed, and ends no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.opened_here import opened_here as opened_here  # a report opens the data

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.discovery.loading import load_plugins

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
    return None


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
    "has another mean": lambda self, data: np.ones(len(data)),
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


@pytest.mark.parametrize("fault", FAULTS)
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


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_an_error_where_it_is_asked_for_and_nothing_elsewhere(
    fault: str, stored: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, *FAULTS[fault])
    for name, command in surfaces(stored, tmp_path).items():
        shown = bench(*command, "--results", stored[0])
        assert shown.code == 0, f"{name}: {shown.err}"
        if name != "statistics":
            asked = bench(*command, "--metric", "faulty", "--results", stored[0])
            assert asked.code == 2 and "'faulty'" in asked.err, f"{name}: {asked.err}"
            assert "Unexpected" not in asked.err and len(asked.err.splitlines()) == 1


@pytest.mark.parametrize("fault", INFLUENCES)
def test_influence_values_are_checked(
    fault: str, stored: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "influence", INFLUENCES[fault])
    for name, command in surfaces(stored, tmp_path).items():
        if name not in ("statistics", "leaderboard"):  # which shows the value alone
            asked = bench(*command, "--metric", "faulty", "--results", stored[0])
            assert asked.code == 2 and "'faulty'" in asked.err, f"{name}: {asked.err}"
            assert "influence" in asked.err
