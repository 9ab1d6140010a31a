"""The order of the timesteps, learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.recorded import N_DRAWS, record, replay

from bench.recordings import learn_order as learning_order
from bench.recordings.learn_order import learn_order
from bench.recordings.recording import open_draws
from bench.recordings.trials import OrderTrial, choose_recommended
from bench.store.folder import read_records


def test_learn_order_finds_the_timesteps_that_tell(tmp_path: Path) -> None:
    path = record(tmp_path, informative=(60, 75))  # timesteps 605 to 745
    learned = learn_order(path)
    low, high = map(int, learned.order.split("-"))
    assert 600 <= low < high <= 750
    assert learned.cost < learned.cost_even
    assert learned.recommended is not None and "order" in learned.recommended
    assert 0.02 < learned.span < 0.3
    even = replay(path, "race", {}, tmp_path)["cost"]["evaluations_per_image"]
    banded = replay(path, "race", {"order": learned.order}, tmp_path)
    assert banded["cost"]["evaluations_per_image"] < 0.8 * even
    # What is promised is what a replay then takes, of some images as well.
    assert learned.cost == pytest.approx(banded["cost"]["evaluations_per_image"])
    assert learned.cost_even == pytest.approx(even)
    params = {"order": learned.order, "deviation": learned.deviation, "first": 1}
    known = replay(path, "race", params, tmp_path)["cost"]["evaluations_per_image"]
    assert learned.cost_with_deviation == pytest.approx(known)
    assert known < learned.cost and 0 < learned.deviation < learned.span
    some = learn_order(path, limit=10)
    again = replay(path, "race", {"order": some.order}, tmp_path / "some", limit=10)
    assert some.cost == pytest.approx(again["cost"]["evaluations_per_image"])
    done = bench("learn-order", path, "--json", "--out", tmp_path / "order.json")
    assert done.json["order"] == learned.order
    assert json.loads((tmp_path / "order.json").read_text()) == done.json


def test_differences_are_weighted_as_in_a_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On draws 60 to 75, another class is ahead for every fourth image."""
    recording = open_draws(record(tmp_path, misleading=4))
    inside = (np.arange(N_DRAWS) >= 60) & (np.arange(N_DRAWS) < 75)
    plain = {part.timesteps: part.cost for part in learn_order(recording.path, limit=12).parts}
    weights = np.where(inside, 5.0, 0.1)
    weighted = replace(recording, problem=replace(recording.problem, weights=weights))
    monkeypatch.setattr(learning_order, "open_draws", lambda path: weighted)
    learned = learning_order.learn_order(recording.path, limit=12)
    errors = [recording.errors(s.sample_id) * weights for s in recording.subset(12)]
    assert learned.span == pytest.approx(max(np.ptp(table, axis=0).max() for table in errors))
    cost = {part.timesteps: part.cost for part in learned.parts}["605-645"]
    assert cost < 15 < plain["605-645"]  # with these weights, that class wins


def test_an_order_that_loses_winners_is_not_recommended(tmp_path: Path) -> None:
    path = record(tmp_path, misleading=4)
    learned = learn_order(path)
    even, banded, *_ = learned.trials
    assert learned.held_out and learned.cost < 0.5 * learned.cost_even
    assert banded.params == {"order": learned.order} and even.params == {}
    assert even.agreement > 0.95 and banded.agreement < 0.85
    assert banded.difference_ci95[0] < banded.difference < 0
    assert learned.recommended is None
    out = bench("learn-order", path).out
    assert "Nothing is recommended" in out and "Next:" not in out
    assert f"{100 * banded.agreement:.1f} (" in out


def test_the_agreement_is_that_of_images_that_were_not_learned_from(tmp_path: Path) -> None:
    path = record(tmp_path)
    trials = {str(trial.params): trial for trial in learn_order(path).trials}
    replayed = replay(path, "race", {}, tmp_path)
    records = read_records(Path(replayed["results_dir"]))
    full = read_records(path)
    agree = sum(records[name]["prediction"] == full[name]["prediction"] for name in full)
    assert trials["{}"].agreement == agree / len(full)  # nothing was learned: a replay of them all
    assert trials["{}"].cost == pytest.approx(replayed["cost"]["evaluations_per_image"])


def test_too_few_images_recommend_nothing(tmp_path: Path) -> None:
    path = record(tmp_path, informative=(60, 75))
    few = learn_order(path, limit=19)
    assert not few.held_out and few.recommended is None and few.cost < few.cost_even
    done = bench("learn-order", path, "--limit", 19)
    assert "19 images are too few" in done.out and "Next:" not in done.out
    assert learn_order(path, limit=20).held_out


def test_the_cheapest_of_those_that_lose_nothing_is_recommended() -> None:
    def trial(cost: float, difference: float, low: float = -0.01) -> OrderTrial:
        return OrderTrial(
            params={"first": int(cost)},
            cost=cost,
            agreement=0.98 + difference,
            agreement_ci95=(0.9, 1.0),
            difference=difference,
            difference_ci95=(low, 0.05),
        )

    even = trial(50, 0.0)
    tried = [trial(10, 0.0, low=-0.06), trial(20, -0.01), trial(30, 0.0), trial(40, 0.02)]
    assert choose_recommended([even, *tried]) == {"first": 30}
    assert choose_recommended([even, *tried[:2], trial(60, 0.02)]) is None
