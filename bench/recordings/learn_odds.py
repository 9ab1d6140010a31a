"""Learn from recorded errors the odds that a rival in a race ends ahead of its leader."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.contracts.strategy import Ints
from bench.discovery.loading import learning_strategy
from bench.recordings.recording import open_draws
from bench.recordings.replay import decider_for
from bench.recordings.trials import (
    LearnedRaces,
    RaceParams,
    compare_races,
    image_errors,
)

DELTAS = (0.1, 0.03, 0.01)  # thresholds of the probability to try


class LearnedOdds(LearnedRaces):
    """Odds that were learned from a recording, and races with them at several thresholds."""

    odds: list[float]  # coefficients of the regression


def learn_odds(path: Path, limit: int | None = None) -> LearnedOdds:
    """Learn the odds that a rival ends ahead of the leader, and try several `delta` with them.

    A race with odds drops a rival if its probability of ending ahead, times the number of rivals,
    is below `delta`. With 20 images or more, each `delta` is tried by five-fold cross-validation.
    `path` and `limit` are as in `learn_order`. Raises UserError if the run has no errors, or if too
    few rivals overtook the leader.
    """
    recording, spec = open_draws(path), learning_strategy("odds")
    samples = recording.subset(limit)
    strategy = decider_for(recording, spec.name, spec.unproven).strategy

    def learn(rows: Ints) -> list[RaceParams]:
        """Return the race without odds, then one per `delta`, with odds from images `rows`."""
        images = (pair for row in rows for pair in image_errors(recording, samples[row]))
        with_odds = {**spec.unproven, **strategy.learn(images)}
        return [spec.unproven, *({**with_odds, "delta": delta} for delta in DELTAS)]

    choices = learn(np.arange(len(samples)))
    races = compare_races(recording, samples, spec.name, choices, learn)
    return LearnedOdds(**dict(races), odds=list(choices[1]["odds"]))
