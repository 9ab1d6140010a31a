"""Learn from recorded tables how likely a rival in a race ends ahead of the leader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery.loading import exhaustive, learning
from bench.recordings.learn_order import (
    MIN_HELD_OUT,
    OrderTrial,
    RaceParams,
    cross_validated,
    order_trials,
    recommended,
)
from bench.recordings.recording import open_draws
from bench.recordings.replay import replayed, strategy_for
from bench.store.fields import Document
from bench.store.records import Record

DELTAS = (0.1, 0.03, 0.01)  # thresholds that are tried


class LearnedOdds(Document):
    """Odds that were learned from a recording, and races with them."""

    run_id: str
    n_samples: int
    odds: list[float]  # weights of the regression
    held_out: bool  # whether races were tried on images that the odds were not learned from
    trials: list[OrderTrial]  # the race without odds, and with them at several thresholds
    recommended: RaceParams | None  # the cheapest that is shown to lose no agreement; None: none


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
    strategy = strategy_for(recording, spec.name, spec.unproven)[1]

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

    def raced(rows: Ints, choices: Sequence[RaceParams]) -> list[list[Record]]:
        strategies = [strategy_for(recording, spec.name, params)[1] for params in choices]
        return replayed(recording, [samples[row] for row in rows], strategies)

    every = np.arange(len(samples))
    chosen = learned(every)
    held_out = len(samples) >= MIN_HELD_OUT
    tried = cross_validated(len(samples), learned, raced) if held_out else raced(every, chosen)
    [full] = replayed(recording, samples, [strategy_for(recording, exhaustive(), {})[1]])
    trials = order_trials(chosen, tried, full)
    return LearnedOdds(
        run_id=recording.manifest.run_id,
        n_samples=len(samples),
        odds=list(chosen[1]["odds"]),
        held_out=held_out,
        trials=trials,
        recommended=recommended(trials) if held_out else None,
    )
