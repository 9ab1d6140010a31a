"""The order of the timesteps, learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.recorded import record, replay

from bench.recordings.learn_order import learn_order


def test_learn_order_finds_the_timesteps_that_tell(tmp_path: Path) -> None:
    path = record(tmp_path, informative=(60, 75))  # timesteps 605 to 745
    learned = learn_order(path)
    low, high = map(int, learned.order.split("-"))
    assert 600 <= low < high <= 750
    assert learned.cost < learned.cost_even
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
