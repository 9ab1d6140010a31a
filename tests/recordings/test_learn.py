"""What a run teaches: settings that are tried on other images, and a calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from helpers.command import bench
from helpers.recorded import N_DRAWS, N_IMAGES, record, replay
from helpers.refusals import refused
from helpers.runs import store

from bench.contracts.parameters import Parameter
from bench.contracts.specs import StrategySpec
from bench.discovery.loading import load_plugins
from bench.errors import PluginError
from bench.recordings.learn import (
    LearnedSetting,
    LearnedSettings,
    choose_recommended,
    judge,
    learn,
)
from bench.recordings.recording import open_draws
from bench.stats.inference.paired import Difference
from bench.store.calibrations import read_calibration
from bench.store.folder import read_records
from bench_plugins.strategies.full import Uniform
from bench_plugins.strategies.race import Race


def learned(path: Path, *what: str, strategy: str = "race") -> LearnedSettings:
    """Return the settings that a recording teaches a strategy with its default parameters."""
    settings = learn(path, what or ("deviation",), strategy).settings
    assert settings is not None
    return settings


def by_name(settings: LearnedSettings) -> dict[str, LearnedSetting]:
    return {trial.name: trial for trial in settings.settings}


def test_everything_is_learned_unless_something_is_named(tmp_path: Path) -> None:
    path = record(tmp_path)
    done = bench("learn", path, "--json")
    assert done.code == 0 and done.json["strategy"] == "race", done.err
    assert len(done.json["settings"]["settings"]) == 1 and len(done.json["risks"]) == 4
    calibration = read_calibration(path).calibration
    assert done.json["calibration"] == calibration.plain()
    # Nothing learned is what a run of this backbone does, whose strategy nothing was recorded for.
    usual = dict(load_plugins().strategies.get("race").unproven)
    assert done.json["settings"]["nothing_learned"]["params"] == usual
    assert usual.items() <= calibration.others[-1].strategy.params.items()


@pytest.mark.long
def test_all_that_is_learned_is_shown(tmp_path: Path) -> None:
    shown = bench("learn", record(tmp_path))
    assert shown.code == 0 and "ceiling=published" in shown.out
    for heading in ("learned", "--risk", "Next:"):
        assert heading in shown.out


def test_a_run_without_errors_teaches_a_probability_alone(tmp_path: Path) -> None:
    path = store(tmp_path, [n % 2 for n in range(40)], [0] * 40, strategy="race")
    taught = learn(path)
    assert taught.settings is None and "no recorded errors" in str(taught.not_learned)
    assert taught.calibration is not None and taught.risks == []
    shown = bench("learn", path).out
    assert "No settings were learned: " in shown and "--save-errors" in shown
    for named in (("deviation",), ("--strategy", "race")):
        ended = bench("learn", path, *named)
        assert ended.refuses("recorded errors")


def test_what_nobody_learns_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path)
    for words in (("size",), ("deviation", "reach"), ("reach", "--strategy", "race")):
        ended = bench("learn", path, *words)
        assert ended.refuses("deviation (race)", "reach (screen-race)")


def test_differences_are_weighted_as_in_a_race(tmp_path: Path) -> None:
    recording = open_draws(record(tmp_path))
    errors = recording.errors("image-0").astype(np.float64)

    def square(weights: Any) -> float:
        return Race().statistics(replace(recording.problem, weights=weights), errors, None).square

    assert square(np.full(N_DRAWS, 3.0)) == pytest.approx(9 * square(np.ones(N_DRAWS)))


def test_a_deviation_that_loses_winners_is_not_recommended(tmp_path: Path) -> None:
    path = record(tmp_path)
    settings = learned(path)
    nothing, known = settings.nothing_learned, by_name(settings)["deviation"]
    assert known.params["first"] == 1 and 0.02 < known.params["deviation"] < 0.03
    assert settings.held_out and known.cost < nothing.cost
    assert nothing.agreement == 1 and known.agreement < 0.95
    assert known.difference.interval[0] < known.difference.estimate < 0
    assert known.verdict == "agrees less often" and settings.recommended is None
    out = bench("learn", path, "deviation", "--strategy", "race").out
    assert "Nothing is recommended" in out and "loses: agrees" in out and "Next:" not in out
    assert f"{100 * known.agreement:.1f} (" in out


def test_the_agreement_is_that_of_images_that_were_not_learned_from(tmp_path: Path) -> None:
    path = record(tmp_path)
    nothing = learned(path).nothing_learned
    replayed = replay(path, "race", {}, tmp_path)
    records = read_records(Path(replayed["results_dir"]))
    full = read_records(path)
    agree = sum(records[name]["prediction"] == full[name]["prediction"] for name in full)
    assert nothing.agreement == agree / len(full)  # nothing was learned: a replay of them all
    assert nothing.cost == pytest.approx(replayed["cost"]["evaluations_per_image"])


def trial(cost: float, difference: float = 0.0, low: float = -0.01) -> LearnedSetting:
    return LearnedSetting(
        name="",
        params={"first": int(cost)},
        cost=cost,
        agreement=0.9 + difference,
        agreement_ci95=(0.8, 1.0),
        difference=Difference(
            estimate=difference, interval=(low, 0.1), p=None, level=0.05, method="mcnemar", n=99
        ),
    )


@pytest.mark.parametrize(
    ("learned", "verdict"),
    [
        (trial(10), "gains"),
        (trial(10, low=-0.06), "agreement not shown"),
        (trial(10, -0.01), "agrees less often"),
        (trial(50), "costs more"),
        (trial(60, 0.02), "costs more"),
        (trial(60, -0.02), "costs more"),
        (trial(60, 0.08, low=0.01), "gains"),
        (trial(10, 0.08, low=0.01), "gains"),
    ],
)
def test_a_setting_gains_if_it_saves_and_loses_nothing_or_agrees_more(
    learned: LearnedSetting, verdict: str
) -> None:
    assert judge(learned, trial(50)).verdict == verdict


def test_the_cheapest_that_gains_is_recommended() -> None:
    tried = [trial(10, low=-0.06), trial(20, -0.01), trial(30), trial(40, 0.02)]
    judged = [judge(each, trial(50)) for each in tried]
    best = choose_recommended(judged)
    assert best is not None and best.params == {"first": 30}
    assert choose_recommended(judged[:2]) is None


class Frugal(Uniform):
    """A strategy of another plugin, which learns how many draws are enough."""

    taught: ClassVar[Any] = {"fewer": {"samples": 5}, "more": {"samples": 50}}

    def statistics(self, problem: Any, errors: Any, first_order: Any) -> Any:
        assert first_order is None and errors.dtype == np.float64
        return errors.shape

    def learn(self, statistics: Sequence[Any]) -> Mapping[str, Any]:
        assert set(statistics) == {(6, N_DRAWS)}
        taught = self.taught
        if isinstance(taught, Exception):
            raise taught
        # The fourth is only learned from all images: a fold has too few.
        few = len(statistics) < N_IMAGES or not isinstance(taught, dict)
        return taught if few else {**taught, "rare": {"samples": 3}}


@pytest.fixture
def frugal(monkeypatch: pytest.MonkeyPatch) -> type[Frugal]:
    spec = StrategySpec(
        name="frugal",
        target=f"{Frugal.__module__}:Frugal",
        parameters={"samples": Parameter(20), "draws": Parameter(100)},
        learned=("samples",),
    )
    plugins = load_plugins()
    registered = {**plugins.strategies.by_name(), "frugal": spec}
    monkeypatch.setattr(plugins.strategies, "_specs", registered)
    return Frugal


def test_a_strategy_of_a_plugin_learns_what_it_declares(
    frugal: type[Frugal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(tmp_path)
    done = bench("learn", path, "samples", "--json").json
    assert done["strategy"] == "frugal" and done["settings"]["untried"] == ["rare"]
    few, more = done["settings"]["settings"]
    assert (few["cost"], more["cost"]) == (30, 300) and more["verdict"] == "costs more"
    monkeypatch.setattr(frugal, "taught", ValueError("too few images"))
    with refused("frugal", "too few images"):
        learned(path, "samples", strategy="frugal")
    for wrong in (None, {"some": 3}, RuntimeError("broken")):
        monkeypatch.setattr(frugal, "taught", wrong)
        with refused("'frugal'", kind=PluginError):
            learned(path, "samples", strategy="frugal")
    monkeypatch.setattr(frugal, "taught", {"some": {"size": 3}})
    with refused("'size'"):
        learned(path, "samples", strategy="frugal")


def test_what_agrees_more_often_is_recommended(frugal: type[Frugal], tmp_path: Path) -> None:
    settings = learn(
        record(tmp_path), ("samples",), "frugal", {"samples": 1, "draws": 100}
    ).settings
    assert settings is not None and settings.recommended == {"samples": 50, "draws": 100}
    assert by_name(settings)["more"].verdict == "gains"


def test_learned_parameters_must_be_parameters() -> None:
    with refused("learned", kind=ValueError):
        StrategySpec(name="x", target="a:B", parameters={"n": 1}, learned=("m",))
