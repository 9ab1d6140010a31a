"""`bench learn-odds`: when a race may stop, learned from recorded errors."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.command import bench
from helpers.recorded import N_IMAGES, record, replay

from bench.recordings.learn_odds import DELTAS, learn_odds


def test_learned_odds_are_tried_on_other_images_and_race(tmp_path: Path) -> None:
    path = record(tmp_path)
    learned = learn_odds(path)
    assert learned.held_out and learned.n_samples == N_IMAGES and len(learned.odds) == 7
    plain, *others = learned.trials
    assert "odds" not in plain.params and [t.params["delta"] for t in others] == list(DELTAS)
    costs = [trial.cost for trial in others]
    assert costs == sorted(costs) and costs[0] < plain.cost
    done = bench("learn-odds", path, "--json", "--out", tmp_path / "odds.json")
    shown = bench("learn-odds", path).out
    assert done.code == 0 and done.json["odds"] == learned.odds, done.err
    assert json.loads((tmp_path / "odds.json").read_text("utf-8")) == done.json
    text = ",".join(map(str, done.json["odds"]))
    assert f"odds={text}" in shown.replace("\n", "")
    params = {"ceiling": "published", "first": 2, "delta": 0.03, "odds": text}
    raced = replay(path, "race", params, tmp_path)
    assert raced["strategy"]["params"]["odds"] == done.json["odds"]
    assert raced["cost"]["evaluations_per_image"] < plain.cost
