"""The strategy contract: request cells or linearisations, receive errors, decide. numpy only.

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
        """Return the next request, or None when the image is decided."""

    def tell(self, request: Any, reply: Reply) -> None:
        """Take the reply to the request that `ask` returned last."""

    def outcome(self) -> Outcome:
        """Return the decision; called once `ask` has returned None."""


@dataclass(frozen=True)
class Replaced:
    """The strategy that another one replaces to save cost.

    Attributes:
        strategy: registered name of the replaced strategy.
        equivalents: its cost per image, in evaluations.
        settings: the parameters with which the replacing strategy never costs more.
    """

    strategy: str
    equivalents: float
    settings: Mapping[str, Any]


class Strategy(ABC):
    """A strategy, made from its spec's parameters; raises ValueError on invalid values.

    Only `draws` and `start` are required. A class that has them without this base gets the defaults
    of the other members.

    Every request must name cells of the problem, none of which was requested before; a mixture sums
    to one. A bad request or an exception fails that image and names the plugin. All arrays that a
    strategy receives are read-only.

    Attributes:
        draws: N, the number of draws of the plan.
        linearises: whether it needs linearisations.
        same_draws: whether every prompt is evaluated on the same draws, whatever the errors are,
            and the lowest score decides. Then scores compare across the images of an item, too.
            Other strategies are used for the text score of such an item alone.
        uses_hierarchy: whether it needs a tree of classes, `Problem.parents`, and prompts of its
            inner nodes. Other strategies have the prompts of classes alone.
        settled: parameters that follow from others, with their values to be recorded.
        level: level of one comparison in the test that decides an image; None: there is no test.
    """

    draws: int
    linearises: bool = False
    same_draws: bool = False
    uses_hierarchy: bool = False
    settled: Mapping[str, Any] = MappingProxyType({})
    level: float | None = None

    @staticmethod
    def sweep(
        n_draws: int, linearised: bool, learned: Mapping[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        """Return the settings that `bench sweep` tries; without any, the strategy must be named.

        Args:
            n_draws: N of the recording.
            linearised: whether first-order errors were recorded, too.
            learned: values learned from other images, such as `order`, by parameter.
        """
        return ()

    @abstractmethod
    def start(self, problem: Problem) -> Session:
        """Begin an image."""

    def check(self, problem: Problem) -> None:  # noqa: B027  # most strategies refuse nothing
        """Raise ValueError on a problem that it cannot be used on; called before scoring."""

    def at_most(self, problem: Problem) -> float:
        """Return an upper bound of the sum of `Reply.cost`: a request for each prompt and draw.

        A strategy that never returns to a draw costs `Problem.price` of all prompts on all draws at
        the most.
        """
        return len(problem.class_of_prompt) * problem.price(1, len(problem.timesteps))

    def at_least(self, problem: Problem) -> float | None:
        """Return a lower bound of the sum of `Reply.cost`; None if unknown."""
        return None

    def cheapest(self, problem: Problem, errors: Floats) -> float | None:
        """Return the cost of the cheapest proof of an image's winner, if it were known.

        `errors` is float64 [P, N], of every prompt on every draw. The cost is in evaluation
        equivalents; None for a strategy without proofs.
        """
        return None

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return the strategy that it replaces to save cost; None where it never costs more."""
        return None

    def learn(self, images: Iterable[tuple[Problem, Floats]]) -> Mapping[str, Any]:
        """Return parameters learned from errors of other images; ValueError: they are too few.

        Errors are float64 [P, N], of every prompt on every draw.
        """
        return {}


class ErrorTable:
    """The errors of one image so far, float32 [P, N], NaN where a cell is not evaluated."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        shape = (len(problem.class_of_prompt), len(problem.timesteps))
        self.errors = np.full(shape, np.nan, dtype=np.float32)
        # Running sums, so that scores cost O(P) at any time. They do not depend on the order of
        # the draws: float64 holds sums of thousands of float32 values exactly, or nearly.
        self._draws = np.zeros(shape[0], dtype=np.int64)
        self._sums = np.zeros(shape[0])
        self._weights = np.zeros(shape[0])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Add the errors of a request for new cells."""
        self.errors[np.ix_(request.prompts, request.draws)] = reply.values
        weights = self.problem.weights[request.draws]
        self._draws[request.prompts] += len(request.draws)
        self._sums[request.prompts] += (reply.values.astype(np.float64) * weights).sum(axis=1)
        self._weights[request.prompts] += weights.sum()

    def draws(self) -> Ints:
        """Return int64 [P]: the number of draws of each prompt."""
        return self._draws.copy()

    def scores(self) -> Floats:
        """Return float64 [P]: each prompt's weighted mean error over its draws, inf without one."""
        means = np.full(len(self._sums), inf)
        np.divide(self._sums, self._weights, out=means, where=self._weights > 0)
        return means

    def outcome(self, survived: Sequence[int] | Ints | None = None) -> Outcome:
        """Rank the classes and measure the margin.

        Args:
            survived: [P], the number of stages that each prompt survived: more ranks before fewer,
                whatever the score. None: by score alone. Ties go to the lower prompt index.
        """
        scores = self.scores()
        best = best_prompts(self.problem, scores, survived)
        ranking = self.problem.class_of_prompt[best]
        by_class = best[np.argsort(ranking)]
        margin, stderr = self._margin(best)
        draws, certainty = self._draws[by_class], confidence(margin, stderr)
        return Outcome(ranking, scores[by_class], draws, margin, stderr, certainty)

    def _margin(self, best: Ints) -> tuple[float, float]:
        if len(best) < 2:
            return inf, 0.0
        difference = (self.errors[best[1]] - self.errors[best[0]]).astype(np.float64)
        shared = np.flatnonzero(np.isfinite(difference))
        problem = self.problem
        return paired_mean(difference[shared], problem.weights[shared], problem.pairs(shared))


def best_prompts(
    problem: Problem, scores: Floats, survived: Sequence[int] | Ints | None = None
) -> Ints:
    """Return int64 [C], the best prompt of each class, best class first; see `ErrorTable`.

    Inner nodes of a tree are no classes.
    """
    stages = np.zeros(len(scores)) if survived is None else np.asarray(survived)
    order = np.lexsort((np.arange(len(scores)), scores, -stages))
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = np.asarray(order[np.sort(first)])
    if problem.parents is None:
        return best
    return np.asarray(best[problem.class_of_prompt[best] < problem.n_classes])


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
        pairs: int64 [n], ascending, the pair of each draw; None: draws are not paired.

    Returns:
        The weighted mean and its standard error: (0, 0) for n = 0, and inf for a single value.
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
    """Return the probability that a normal mean with this estimate and standard error is positive.

    NaN after a single draw, which has no standard error.
    """
    if isinf(stderr):
        return nan
    if stderr > 0:
        return 0.5 * (1.0 + erf(margin / stderr / sqrt(2.0)))
    return float(margin > 0 or 0.5)
