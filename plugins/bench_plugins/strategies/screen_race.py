"""Screening: rank all prompts by one gradient per draw, and race only those near the best.

A gradient linearises the error of a draw around a mixture of the prompts. The result approximates
the errors of all prompts, and is called their first-order errors; see `Linearise`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, isfinite
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bench.contracts.draw_order import sub_grid
from bench.contracts.strategy import (
    Evaluate,
    Floats,
    Linearise,
    Outcome,
    Problem,
    Replaced,
    Reply,
    Strategy,
    confidence,
    paired_mean,
)
from bench.stats.calibration.risk import RISKS, conformal_quantile, distances
from bench_plugins.strategies._racing import RaceSession, published_cost
from bench_plugins.strategies.race import Race

SCREEN_DRAWS = (2, 4, 8, 16, 32)  # values of `samples` among which `learn` chooses


class ImageScreens(NamedTuple):
    """Screens of one recorded image, with several numbers of draws."""

    problem: Problem
    winner: int  # the exhaustive winner
    distances: dict[int, Floats]  # number of draws → distance of each prompt, float64 [P]


class ScreenRace(Strategy):
    """Rank all prompts by one gradient per draw, then race those near the best.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(ScreenRace(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations  # raced: no gradients
    ([3, 2, 4, 1, 0], 57)

    The *first-order score* of a prompt is the weighted mean of its first-order errors over
    `samples` evenly spread draws. A prompt is *in reach* if its first-order score exceeds the
    lowest by at most `reach` standard deviations of the prompts' scores; this unit makes images of
    different contrast comparable. Prompts in reach are raced on exact errors as in `race` (bound
    `t`). So the exhaustive winner is lost either in the screen, if it is out of reach, or in the
    race.

    `bench learn RUN reach` calibrates `reach` by split conformal prediction so that, for a new
    image exchangeable with the recorded ones, the screen keeps the winner with a given probability.
    The default is not calibrated; design/racing.md shows how often it kept the winner.

    If the denoiser is far from linear, a gradient at the mean of *all* prompts says little about
    the prompts near the winner. With `screens=2` the prompts in reach are screened again on the
    same draws, linearised at their own mean. This is done only if the last screen dropped a prompt,
    and if a screen costs less than the first round of the race on the prompts in reach. The reach
    of later screens cannot be calibrated, because recordings hold linearisations at the mean of all
    prompts only.

    The cost of a screen is `Problem.linearisation_cost` per draw, whatever the number of prompts.
    If the backbone cannot linearise (`Problem.can_linearise`), all prompts race.

    Args:
        reach: how far a prompt may lie above the lowest first-order score, in standard deviations
            of the prompts' first-order scores.
        samples: draws to linearise.
        screens: maximum number of screens.
        delta: significance level of the race's bound.
        first: draws before the first test of the race.
        order: bands of timesteps that the race evaluates first.
        draws: N, the draws of the plan.
        growth: as of `race`.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "screen-race",
        # The reach comes first, because the race cannot recover a winner that is out of reach.
        "safest_first": (
            {"reach": 4.0, "first": 4, "delta": 1e-5},
            {"reach": 4.0, "first": 2, "delta": 1e-4},
            {"reach": 3.0, "first": 2, "delta": 1e-3},
            {"reach": 2.5, "first": 2, "delta": 0.02},
            {"reach": 2.0, "first": 2, "delta": 0.02},
            {"reach": 1.5, "first": 2, "delta": 0.02},
            {"reach": 1.0, "first": 2, "delta": 0.02},
            {"reach": 0.5, "first": 2, "delta": 0.02},
        ),
        "learned": ("reach",),
        "recorder": "full-linearised",
    }
    linearises = True

    def __init__(
        self,
        reach: float = 1.5,
        samples: int = 4,
        screens: int = 1,
        delta: float = 0.02,
        first: int = 4,
        order: str = "even",
        draws: int = 500,
        growth: int = 8,
    ) -> None:
        if not reach >= 0:
            raise ValueError(f"reach must be at least 0, got {reach}")
        if not 1 <= samples <= draws:
            raise ValueError(f"samples must be between 1 and draws={draws}, got {samples}")
        if screens < 1:
            raise ValueError(f"screens must be at least 1, got {screens}")
        self.race = Race(delta=delta, first=first, order=order, draws=draws, growth=growth)
        self.reach, self.samples, self.screens, self.draws = reach, samples, screens, draws
        self.level, self.level_words = delta, self.race.level_words

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return several reaches, each with two first looks; none without first-order errors."""
        reaches = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0) if linearised else ()
        return [{"reach": reach, "first": first} for first in (2, 4) for reach in reaches]

    def start(self, problem: Problem) -> RaceSession:
        """Start one image; without a screen if the backbone cannot linearise."""
        if problem.can_linearise:
            return ScreenRaceSession(self, problem)
        return self.race.start(problem)

    def at_least(self, problem: Problem) -> float:
        """Return the lowest cost per image: one screen, and one prompt up to the first look."""
        session = self.start(problem)
        if not isinstance(session, ScreenRaceSession):
            return self.race.at_least(problem)
        return session.screen_cost + session.first_look_cost(1)

    def at_most(self, problem: Problem) -> float:
        """Return the highest cost per image: all screens and a race of all prompts."""
        draws = min(self.samples, len(problem.timesteps)) * self.screens
        screens = draws * problem.linearisation_cost if problem.can_linearise else 0.0
        return self.race.at_most(problem) + screens

    def replaces(self, problem: Problem) -> Replaced:
        """Return the published `adaptive`; no parameters hold this strategy to its cost."""
        return Replaced("adaptive", published_cost(problem), {})

    def statistics(
        self, problem: Problem, errors: Floats, first_order: Floats | None
    ) -> ImageScreens:
        """Return the screens of one image. The winner has the lowest score over all draws."""
        assert first_order is not None, "the strategy linearises"
        winner = int((errors * problem.weights).mean(axis=1).argmin())
        n_draws = len(problem.timesteps)
        by_draws = {}
        for n in (n for n in SCREEN_DRAWS if n <= n_draws):
            grid = sub_grid(n, n_draws)
            weighted = first_order[:, grid] * problem.weights[grid]
            by_draws[n] = distances(weighted.mean(axis=1))  # a factor of the scores cancels
        return ImageScreens(problem, winner, by_draws)

    def learn(self, statistics: Sequence[ImageScreens]) -> dict[str, dict[str, Any]]:
        """Return the `reach` at which a screen keeps the exhaustive winner, for several risks.

        It is the conformal quantile of the winners' distances: a screen that keeps all prompts
        within it loses the winner of a new image with probability at most the risk, if that image
        is exchangeable with these. Of several numbers of `samples`, the one with the lowest cost up
        to the race's first look is chosen.
        """
        settings = {}
        for risk in RISKS:
            reaches = {n: winner_reach(statistics, n, risk) for n in statistics[0].distances}
            costs = {
                n: self._first_cost(statistics, n, reach)
                for n, reach in reaches.items()
                if isfinite(reach)
            }
            if costs:  # otherwise there are too few images for this risk
                samples = min(costs, key=lambda n: costs[n])
                reach = ceil(1000 * reaches[samples]) / 1000  # rounded up, to keep the winner
                settings[f"risk {risk:g}"] = {"samples": samples, "reach": reach}
        return settings

    def _first_cost(self, images: Sequence[ImageScreens], samples: int, reach: float) -> float:
        """Return the mean cost of a screen and the race's first look at the prompts it keeps."""
        kept = [int((image.distances[samples] <= reach).sum()) for image in images]
        problem = images[0].problem
        looks = [problem.price(prompts, self.race.first) for prompts in kept]
        return samples * problem.linearisation_cost + float(np.mean(looks))


def winner_reach(images: Sequence[ImageScreens], samples: int, risk: float) -> float:
    """Return the reach that loses a new image's winner with at most this probability.

    It is infinite if there are too few images for that.
    """
    far = [image.distances[samples][image.winner] for image in images]
    return conformal_quantile(np.array(far), risk)


class ScreenRaceSession(RaceSession):
    """One image: one or more screens, then the race of the kept prompts.

    At most `screens` further screens of the draws `screened` may be made, each of cost
    `screen_cost`. The latest one linearised at the mean of `n_screened` prompts; `first_order`
    [P, n] are its errors, empty before it. `ranked` [P] has all prompts, best first by the screens.
    """

    def __init__(self, strategy: ScreenRace, problem: Problem) -> None:
        super().__init__(strategy.race, problem)
        self.reach, self.screens = strategy.reach, strategy.screens
        self.screened = sub_grid(strategy.samples, len(problem.timesteps))
        self.screen_cost = len(self.screened) * problem.linearisation_cost
        self.first_order: Floats = np.zeros((0, 0))
        self.n_screened = len(self.alive)
        self.ranked = np.arange(len(self.alive))

    def ask(self) -> Evaluate | Linearise | None:
        """Return a linearisation while a screen is due, then the requests of the race."""
        if not self.seen and self.screens and self.is_screen_due():
            mixture = np.zeros(len(self.ranked))
            mixture[self.alive] = 1 / len(self.alive)
            return Linearise(self.screened, mixture)
        return super().ask()

    def is_screen_due(self) -> bool:
        """Return whether to screen: always at first, later if it costs less than a first look.

        After a screen that dropped no prompt, another one would have the same result.
        """
        if not self.first_order.size:
            return True
        dropped = len(self.alive) < self.n_screened
        return dropped and self.screen_cost < self.first_look_cost(len(self.alive))

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Drop prompts that are out of reach after a screen, or that the race drops."""
        if isinstance(request, Evaluate):
            super().tell(request, reply)
            return
        self.screens -= 1
        self.n_screened = len(self.alive)
        self.first_order = reply.values.astype(np.float64)
        scores = self.scores()[self.alive]
        dropped = self.ranked[~np.isin(self.ranked, self.alive)]
        self.ranked = np.concatenate([self.alive[np.argsort(scores, kind="stable")], dropped])
        self.alive = self.alive[distances(scores) <= self.reach]

    def scores(self) -> Floats:
        """Return float64 [P]: the first-order scores of the last screen."""
        weights = self.problem.weights[self.screened]
        return np.asarray(np.average(self.first_order, axis=1, weights=weights))

    def outcome(self) -> Outcome:
        """Rank classes with a raced prompt as a race does, then the others by the screens.

        A class without a raced prompt has no draws and an infinite score. If it is the runner-up,
        the margin, its standard error and the confidence are computed from first-order errors.
        """
        if not self.first_order.size:
            return super().outcome()
        draws = self.table.draws()
        rank = np.argsort(self.ranked)  # of each prompt, 0 for the best: the inverse permutation
        # Prompts come in the order of their draws; those without one, after all others, by rank.
        precedence = np.where(draws > 0, draws, -rank)
        outcome = replace(self.table.outcome(precedence), decided_by=self.end_reason())
        if len(outcome.ranking) < 2 or outcome.draws[outcome.ranking[1]]:  # it was raced
            return outcome
        classes = self.problem.class_of_prompt[self.ranked]
        winner, second = (self.ranked[classes == c][0] for c in outcome.ranking[:2])
        difference = self.first_order[second] - self.first_order[winner]
        weights, pairs = self.problem.weights[self.screened], self.problem.pairs(self.screened)
        margin, stderr = paired_mean(difference, weights, pairs)
        return replace(
            outcome, margin=margin, margin_stderr=stderr, confidence=confidence(margin, stderr)
        )
