"""Screening: one gradient a draw ranks all prompts; only those that could still win are raced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.contracts.strategy import (
    Evaluate,
    Floats,
    Linearise,
    Outcome,
    Problem,
    Reply,
    confidence,
    paired_mean,
)
from bench.inputs.draws import sub_grid
from bench.recordings.screening import distances
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

    A gradient taken at the mean of *all* prompts says little of those near the winner where the
    denoiser is far from linear. With `screens=2`, those in reach are screened once more: the same
    draws, linearised at the mean of who is left, in the unit of who is left, where racing them at
    once would cost more. That second reach has no level: no recording has an image's own mixtures.

    A screen costs about three evaluations a draw, whatever the number of prompts. Without
    linearisations (`Problem.can_linearise`) there is nothing to screen by, and all prompts race.

    Args:
        reach: how far a prompt may lie above the lowest first-order score, in standard deviations
            of the prompts' first-order scores.
        samples: draws to linearise.
        screens: screens at the most.
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
        screens: int = 1,
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
        if screens < 1:
            raise ValueError(f"screens={screens} must be 1 or more")
        self.race = Race(delta=delta, first=first, growth=growth, order=order, draws=draws)
        self.reach, self.samples, self.screens, self.draws = reach, samples, screens, draws

    def start(self, problem: Problem) -> RaceSession:
        """Begin an image."""
        return (
            ScreenRaceSession(self, problem) if problem.can_linearise else self.race.start(problem)
        )

    def at_least(self, problem: Problem) -> int:
        """Return the evaluations an image costs at the least: a screen, and one prompt's race."""
        if not problem.can_linearise:
            return self.race.at_least(problem)
        return LINEARISATION * self.samples + min(self.race.first, len(problem.timesteps))

    def at_most(self, problem: Problem) -> int:
        """Return the evaluations an image costs at the most: the screens, and a race of all."""
        cells = len(problem.class_of_prompt) * len(problem.timesteps)
        return cells + LINEARISATION * self.samples * self.screens


class ScreenRaceSession(RaceSession):
    """One image: a linearisation or several, then the race of who is left."""

    def __init__(self, strategy: ScreenRace, problem: Problem) -> None:
        super().__init__(strategy.race, problem)
        self.reach, self.screens = strategy.reach, strategy.screens
        self.screened = sub_grid(strategy.samples, len(problem.timesteps))
        self.first_order: Floats = np.zeros((0, 0))  # [P, samples], of the last screen
        self.ranked = np.arange(len(self.alive))  # all prompts, best first, by the screens

    def ask(self) -> Evaluate | Linearise | None:
        """Return a screen, as long as it is worth one, then what the race wants."""
        if not self.seen and self.screens and self.worth_a_screen():
            mixture = np.zeros(len(self.ranked))
            mixture[self.alive] = 1 / len(self.alive)
            return Linearise(self.screened, mixture)
        return super().ask()

    def worth_a_screen(self) -> bool:
        """Whether there was none yet, or it dropped some and the first look would cost more."""
        if not self.first_order.size:
            return True
        look = len(self.alive) * self.strategy.first
        return len(self.alive) < len(self.ranked) and look > LINEARISATION * len(self.screened)

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Take first-order errors and drop who is out of reach; or errors, as a race does."""
        if isinstance(request, Evaluate):
            super().tell(request, reply)
            return
        self.screens -= 1
        self.first_order = reply.values.astype(np.float64)
        scores = self.scores()[self.alive]
        out = self.ranked[~np.isin(self.ranked, self.alive)]
        self.ranked = np.concatenate([self.alive[np.argsort(scores, kind="stable")], out])
        self.alive = self.alive[distances(scores) <= self.reach]

    def scores(self) -> Floats:
        """Return float64 [P], the first-order scores of the last screen."""
        weights = self.problem.weights[self.screened]
        return np.asarray(np.average(self.first_order, axis=1, weights=weights))

    def outcome(self) -> Outcome:
        """Rank who raced as a race does, and the others after them as the screens rank them.

        Those have no draws and no score. Where the runner-up is one of them, margin and standard
        error are of the first-order errors.
        """
        if not self.first_order.size:
            return super().outcome()
        draws = self.table.draws()
        outcome = self.table.outcome(np.where(draws > 0, draws, -np.argsort(self.ranked)))
        if len(outcome.ranking) < 2 or outcome.draws[outcome.ranking[1]]:
            return outcome
        classes = self.problem.class_of_prompt[self.ranked]
        winner, second = (self.ranked[classes == c][0] for c in outcome.ranking[:2])
        difference = self.first_order[second] - self.first_order[winner]
        margin, stderr = paired_mean(difference, self.problem.weights[self.screened])
        return replace(
            outcome, margin=margin, margin_stderr=stderr, confidence=confidence(margin, stderr)
        )
