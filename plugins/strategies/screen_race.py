"""Screening: one gradient a draw ranks all prompts; only those that could still win are raced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.draws import sub_grid
from bench.screening import distances
from bench.strategy import (
    Evaluate,
    Floats,
    Linearise,
    Outcome,
    Problem,
    Reply,
    confidence,
    paired_mean,
)
from bench_plugins.strategies.full import LINEARISATION
from bench_plugins.strategies.race import Race, RaceSession


class ScreenRace:
    """Linearise a few draws at the mean of the prompts, keep who is in reach, and race them.

    A prompt's *first-order score* is the mean of its first-order errors over `samples` draws,
    spread evenly. It is *in reach* when its first-order score exceeds the lowest by no more than
    `reach` times their standard deviation over the prompts: this unit makes images of unlike
    contrast comparable. What is in reach is raced on exact errors as `race` does it (bound `t`),
    so a loss is due either to the screen, which is to say that the exhaustive winner was out of
    reach, or to the race.

    `bench learn-screen` finds the `reach` that keeps the winner of another image, exchangeable
    with those recorded, with a stated probability (split conformal prediction). The default has
    no level: it kept the winner of 98 % of 105 training images of UC Merced, on which it was
    chosen, and of all 360 digits (design/screening.md).

    The screen costs about three evaluations a draw, whatever the number of prompts. Without
    linearisations (`Problem.can_linearise`) there is nothing to screen by, and all prompts race.

    Args:
        reach: how far a prompt may lie above the lowest first-order score, in standard deviations
            of the prompts' first-order scores.
        samples: draws to linearise.
        delta: level of the race's bound.
        first: draws before the race's first look.
        growth: a round of the race adds a `growth`-th of the draws seen so far.
        order: timesteps that the race asks for first.
        draws: N, the draws of the plan.
    """

    linearises = True

    def __init__(
        self,
        reach: float = 1.5,
        samples: int = 4,
        delta: float = 0.02,
        first: int = 4,
        growth: int = 8,
        order: str = "even",
        draws: int = 500,
    ) -> None:
        if not reach >= 0:
            raise ValueError(f"reach={reach} must be 0 or more")
        if not 1 <= samples <= draws:
            raise ValueError(f"samples={samples} must lie between 1 and draws={draws}")
        self.race = Race(delta=delta, first=first, growth=growth, order=order, draws=draws)
        self.reach, self.samples, self.draws = reach, samples, draws

    def start(self, problem: Problem) -> RaceSession:
        """Begin an image."""
        return (
            ScreenRaceSession(self, problem) if problem.can_linearise else self.race.start(problem)
        )

    def at_most(self, problem: Problem) -> int:
        """Return the evaluations an image costs at the most: the screen, and a race of all."""
        cells = len(problem.class_of_prompt) * len(problem.timesteps)
        return cells + LINEARISATION * self.samples


class ScreenRaceSession(RaceSession):
    """One image: a linearisation, then the race of who is left."""

    def __init__(self, strategy: ScreenRace, problem: Problem) -> None:
        super().__init__(strategy.race, problem)
        self.reach = strategy.reach
        self.screened = sub_grid(strategy.samples, len(problem.timesteps))
        self.first_order: Floats = np.zeros((0, 0))  # [P, samples], weighted, once told

    def ask(self) -> Evaluate | Linearise | None:
        """Return the screen, then what the race wants."""
        if self.first_order.size:
            return super().ask()
        prompts = len(self.problem.class_of_prompt)
        return Linearise(self.screened, np.full(prompts, 1 / prompts))

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Take first-order errors and drop who is out of reach; or errors, as a race does."""
        if isinstance(request, Evaluate):
            super().tell(request, reply)
            return
        self.first_order = reply.values.astype(np.float64)
        self.alive = np.flatnonzero(distances(self.scores()) <= self.reach)

    def scores(self) -> Floats:
        """Return float64 [P], the first-order scores."""
        weights = self.problem.weights[self.screened]
        return np.asarray(np.average(self.first_order, axis=1, weights=weights))

    def outcome(self) -> Outcome:
        """Rank who raced as a race does, and the others after them by their first-order scores.

        Those have no draws and no score. Where the runner-up is one of them, margin and standard
        error are of the first-order errors.
        """
        if not self.first_order.size:
            return super().outcome()
        order = np.argsort(self.scores(), kind="stable")
        draws = self.table.draws()
        outcome = self.table.outcome(np.where(draws > 0, draws, -np.argsort(order)))
        if len(outcome.ranking) < 2 or outcome.draws[outcome.ranking[1]]:
            return outcome
        classes = self.problem.class_of_prompt[order]
        winner, second = (order[classes == c][0] for c in outcome.ranking[:2])
        difference = self.first_order[second] - self.first_order[winner]
        margin, stderr = paired_mean(difference, self.problem.weights[self.screened])
        return replace(
            outcome, margin=margin, margin_stderr=stderr, confidence=confidence(margin, stderr)
        )
