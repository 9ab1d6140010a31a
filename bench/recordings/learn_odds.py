"""Learn from recorded tables how likely a rival in a race ends ahead of the leader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery.loading import learning
from bench.recordings.learn_order import LearnedRaces, RaceParams, learned_races
from bench.recordings.recording import open_draws
from bench.recordings.replay import decider_for

DELTAS = (0.1, 0.03, 0.01)  # thresholds that are tried


class LearnedOdds(LearnedRaces):
    """Odds that were learned from a recording, and races with them at several thresholds."""

    odds: list[float]  # weights of the regression


def learn_odds(path: Path, limit: int | None = None) -> LearnedOdds:
    """Learn the odds that a rival ends ahead, and try thresholds below which it is dropped.

    With 20 images or more, they are tried on images that they were not learned from (five-fold
    cross-validation).

    Args:
        path: folder of a run with --strategy full --save-errors.
        limit: number of recorded images, those that a replay with this limit decides; None: all.

    Raises:
        UserError: the run has no errors, or too few rivals ended ahead.
    """
    recording, spec = open_draws(path), learning("odds")
    samples = recording.some(limit)
    strategy = decider_for(recording, spec.name, spec.unproven).strategy

    def images(rows: Ints) -> Iterator[tuple[Problem, Floats]]:
        for row in rows:
            problem = recording.questions.of(samples[row]).problem
            table = recording.errors(samples[row].sample_id).astype(np.float64)
            for errors in table.reshape(-1, len(problem.class_of_prompt), table.shape[1]):
                yield problem, errors

    def learned(rows: Ints) -> list[RaceParams]:
        """Return the race without odds, and with those of some images."""
        with_odds = {**spec.unproven, **strategy.learn(images(rows))}
        return [spec.unproven, *({**with_odds, "delta": delta} for delta in DELTAS)]

    chosen = learned(np.arange(len(samples)))
    races = learned_races(recording, samples, spec.name, chosen, learned)
    return LearnedOdds(**dict(races), odds=list(chosen[1]["odds"]))
