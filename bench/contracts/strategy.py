"""The strategy contract: ask for cells or linearisations, be told errors, decide. numpy only.

A strategy never sees the model, so it runs on a model and on recorded errors alike:

    session = strategy.start(problem)
    while (request := session.ask()) is not None:
        session.tell(request, reply)
    session.outcome()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import erf, inf, isinf, nan, sqrt
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from bench.contracts.problem import DECIDED_BY as DECIDED_BY
from bench.contracts.problem import Evaluate as Evaluate
from bench.contracts.problem import Floats as Floats
from bench.contracts.problem import Ints as Ints
from bench.contracts.problem import Linearise as Linearise
from bench.contracts.problem import Outcome as Outcome
from bench.contracts.problem import Problem as Problem
from bench.contracts.problem import Reply as Reply


class Session(Protocol):
    """One image under way. One request is outstanding at a time."""

    def ask(self) -> Evaluate | Linearise | None:
        """Return what is wanted next, or None when decided."""

    def tell(self, request: Any, reply: Reply) -> None:
        """Take the reply to the request that `ask` returned last, of the kinds that it returns."""

    def outcome(self) -> Outcome:
        """Return the decision; called once `ask` has returned None."""


@dataclass(frozen=True)
class Replaced:
    """What a strategy is used instead of.

    Attributes:
        strategy: its registered name.
        equivalents: what it takes per image.
        settings: the parameters with which the one in its place never takes more.
    """

    strategy: str
    equivalents: float
    settings: Mapping[str, Any]


class Strategy(ABC):
    """Made from its spec's parameters; raises ValueError on values that do not make sense.

    Only `draws` and `start` are required. A class that has them without this base gets the defaults
    of the other members.

    Every request must name cells of the problem, and none that was asked for before; a mixture
    sums to one. Whatever does not, or raises, fails that image and names the plugin. The arrays
    that it is handed are read-only.

    Attributes:
        draws: N, the draws of the plan.
        linearises: whether it is of no use without linearisations.
        same_draws: whether every prompt is evaluated on the same draws, whatever the errors are.
            Then its scores compare across the images of an item, too. A strategy that gives prompts
            up serves the text score of such an item alone.
        settled: parameters that follow from others, with their values as they are to be recorded.
        level: of one comparison of the test that decides an image; None: no test does.
    """

    draws: int
    linearises: bool = False
    same_draws: bool = False
    settled: Mapping[str, Any] = MappingProxyType({})
    level: float | None = None

    @staticmethod
    def sweep(
        n_draws: int, linearised: bool, learned: Mapping[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        """Return the settings that `bench sweep` tries; none: only where it is named.

        Args:
            n_draws: N of the recording.
            linearised: whether first-order errors were recorded, too.
            learned: what the user knows of other images, such as `order`, by parameter.
        """
        return ()

    @abstractmethod
    def start(self, problem: Problem) -> Session:
        """Begin an image."""

    def check(self, problem: Problem) -> None:  # noqa: B027  # most strategies refuse nothing
        """Raise ValueError where it cannot be used, such as with too small a budget.

        Called before anything is scored.
        """

    def at_most(self, problem: Problem) -> float:
        """Return an upper bound of what `Reply.cost` sums to: every prompt on every draw."""
        return problem.price(len(problem.class_of_prompt), len(problem.timesteps))

    def at_least(self, problem: Problem) -> float | None:
        """Return a lower bound of what `Reply.cost` sums to; None where that is not known."""
        return None

    def cheapest(self, problem: Problem, errors: Floats) -> float | None:
        """Return the cost of the cheapest proof of a decision; None of a strategy without proofs.

        Args:
            problem: what the image asks.
            errors: float64 [P, N], of every prompt on every draw.

        Returns:
            The cost of one image, in evaluation equivalents, if its winner were known.
        """
        return None

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return what it is used instead of, to save cost; None where it never takes more."""
        return None


class ErrorTable:
    """The errors of one image as they come in; what most sessions keep.

    Attributes:
        errors: float32 [P, N], NaN where a cell has not been evaluated.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        shape = (len(problem.class_of_prompt), len(problem.timesteps))
        self.errors = np.full(shape, np.nan, dtype=np.float32)
        # Running sums, so that scores cost O(P) at any time. They do not depend on the order of
        # the draws: float64 holds sums of thousands of such float32 values exactly, or nearly.
        self._draws = np.zeros(shape[0], dtype=np.int64)
        self._sums = np.zeros(shape[0])
        self._weights = np.zeros(shape[0])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Enter the errors of `request`, none of whose cells has been entered before."""
        self.errors[np.ix_(request.prompts, request.draws)] = reply.values
        weights = self.problem.weights[request.draws]
        self._draws[request.prompts] += len(request.draws)
        self._sums[request.prompts] += (reply.values.astype(np.float64) * weights).sum(axis=1)
        self._weights[request.prompts] += weights.sum()

    def draws(self) -> Ints:
        """Return int64 [P]: how many draws each prompt has."""
        return self._draws.copy()

    def scores(self) -> Floats:
        """Return float64 [P]: each prompt's weighted mean error over its draws, inf without one."""
        means = np.full(len(self._sums), inf)
        np.divide(self._sums, self._weights, out=means, where=self._weights > 0)
        return means

    def outcome(self, survived: Sequence[int] | Ints | None = None) -> Outcome:
        """Rank the classes and measure the margin.

        Args:
            survived: [P], for how many stages each prompt survived: more ranks before fewer,
                whatever the score. None: by score alone. Ties go to the lower prompt index.
        """
        scores, draws = self.scores(), self.draws()
        stages = np.zeros(len(scores)) if survived is None else np.asarray(survived)
        order = np.lexsort((np.arange(len(scores)), scores, -stages))
        classes = self.problem.class_of_prompt[order]
        ranking, first = np.unique(classes, return_index=True)
        best = order[np.sort(first)]  # each class's best prompt, best class first
        ranking = self.problem.class_of_prompt[best]
        by_class = best[np.argsort(ranking)]
        margin, stderr = self._margin(best)
        return Outcome(
            ranking=ranking,
            scores=scores[by_class],
            draws=draws[by_class],
            margin=margin,
            margin_stderr=stderr,
            confidence=confidence(margin, stderr),
        )

    def _margin(self, best: Ints) -> tuple[float, float]:
        if len(best) < 2:
            return inf, 0.0
        difference = (self.errors[best[1]] - self.errors[best[0]]).astype(np.float64)
        shared = np.flatnonzero(np.isfinite(difference))
        problem = self.problem
        return paired_mean(difference[shared], problem.weights[shared], problem.pairs(shared))


def paired_mean(
    difference: Floats, weights: Floats, pairs: Ints | None = None
) -> tuple[float, float]:
    """Return mean and standard error of paired differences in timestep order.

    The variance is taken from neighbouring timesteps (the successive-difference estimator for
    systematic samples, Wolter, *Introduction to Variance Estimation*, 2007, ch. 8): the draws are
    stratified over the timesteps, and the trend along them is not noise. Draws with opposite noise
    are no independent neighbours: the mean of each pair is one value.

    Args:
        difference: float64 [n], ordered by timestep.
        weights: float64 [n], relative weight of each draw.
        pairs: int64 [n], ascending, the pair of each draw; None: each draw is by itself.

    Returns:
        The weighted mean and its standard error; (0, 0) of nothing, an error of inf of one value.
    """
    n = len(difference)
    if n == 0:
        return 0.0, 0.0
    total = float(weights.sum())
    mean = float(difference @ weights) / total
    terms, sizes = difference * weights, np.ones(n)
    if pairs is not None:
        _, member = np.unique(pairs, return_inverse=True)
        sizes = np.bincount(member).astype(np.float64)
        terms = np.bincount(member, weights=terms) / sizes
    if len(terms) == 1:
        return mean, inf
    steps = np.diff(terms)
    variance = float(steps @ steps) / (2 * (len(terms) - 1))
    return mean, sqrt(float(sizes @ sizes) * variance) / total


def confidence(margin: float, stderr: float) -> float:
    """Return the probability that a normal mean of which these were seen is positive.

    NaN where one draw was seen, which says nothing of others.
    """
    if isinf(stderr):
        return nan
    if stderr > 0:
        return 0.5 * (1.0 + erf(margin / stderr / sqrt(2.0)))
    return float(margin > 0 or 0.5)
