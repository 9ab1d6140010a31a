"""The strategy contract: ask for cells or linearisations, be told errors, decide. numpy only.

A strategy never sees the model, so it runs on a model and on recorded errors alike:

    session = strategy.start(problem)
    while (request := session.ask()) is not None:
        session.tell(request, reply)
    session.outcome()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, inf, isinf, nan, sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backbone import LINEARISATION_COST

DECIDED_BY = ("bound", "ceiling", "exhausted")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One image's question, the same for every image of a run. Its arrays are read-only.

    Attributes:
        class_of_prompt: int64 [P], the class index of each prompt.
        timesteps: int64 [N], the timestep of each draw. A classifier backbone has one draw.
        weights: float64 [N], the weight of each draw in a score; all ones unless the user asked.
        seed: for strategies that choose at random.
        can_linearise: whether `Linearise` is answered: the backbone offers gradients to its
            conditioning, or they were recorded.
        reduction: how the errors of a prompt's draws make its score; see
            `bench.contracts.reductions`. A strategy may take it for the mean: where it is another,
            only those that evaluate every prompt on the same draws are used, and their scores are
            replaced.
        cell_cost: of one cell, in evaluations: more than one under guidance, and where several
            templates make one error.
        null_cost: what the first cell on a draw costs besides, in evaluations, where the null's
            error is subtracted.
        linearisation_cost: of one linearised draw, in evaluations.
    """

    class_of_prompt: Ints
    timesteps: Ints
    weights: Floats
    seed: int = 0
    can_linearise: bool = False
    reduction: str = "mean"
    cell_cost: float = 1.0
    null_cost: float = 0.0
    linearisation_cost: float = LINEARISATION_COST

    def __post_init__(self) -> None:
        for name in ("class_of_prompt", "timesteps", "weights"):
            view = np.asarray(getattr(self, name)).view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    def price(self, prompts: int, draws: int) -> float:
        """Return what so many prompts cost on so many new draws, in evaluations."""
        return draws * (prompts * self.cell_cost + self.null_cost)


@dataclass(frozen=True)
class Evaluate:
    """A block of cells: each of `prompts` on each of `draws` (int64 indices)."""

    prompts: Ints
    draws: Ints


@dataclass(frozen=True)
class Linearise:
    """The first-order error of *every* prompt on each of `draws`, for one gradient a draw.

    A cell's error e is a differentiable function of the conditioning c. At the mixture
    c_0 = sum_p mixture_p c_p, forward and backward pass give e(c_0) and its gradient g, and with
    them e(c_0) + <g, c_p - c_0> for all prompts p, at a cost that does not grow with their number
    (the gradient that Diffusion-TTA, Prabhudesai et al., NeurIPS 2023, descends).
    Only where `Problem.can_linearise`.

    Attributes:
        draws: int64 [n], draw indices.
        mixture: float64 [P], weights over the prompts that sum to one.
    """

    draws: Ints
    mixture: Floats


@dataclass(frozen=True)
class Reply:
    """What was asked for, and its cost in evaluations.

    Attributes:
        values: float32 [len(prompts), len(draws)], errors; or [P, len(draws)], first-order errors.
        cost: one for each cell; for each linearised draw what forward and backward pass take on
            this device, in evaluations.
    """

    values: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Outcome:
    """What a strategy concludes of one image.

    Attributes:
        ranking: int64 [C], class indices, best first.
        scores: float64 [C], by class: the score of its best prompt (lower is better).
        draws: int64 [C], by class: the draws behind that score.
        margin: mean difference of the errors of runner-up and winner on the draws they share.
        margin_stderr: its standard error.
        confidence: probability that the winner beats the runner-up, from margin and stderr.
        decided_by: of a strategy that says so, what ended the image: `bound` (its test left one
            class), `ceiling` (a limit on the cost left prompts out or ended it, so that no
            guarantee holds) or `exhausted` (all draws were used up).
    """

    ranking: Ints
    scores: Floats
    draws: Ints
    margin: float
    margin_stderr: float
    confidence: float
    decided_by: str | None = None


class Session(Protocol):
    """One image under way. One request is outstanding at a time."""

    def ask(self) -> Evaluate | Linearise | None:
        """Return what is wanted next, or None when decided."""

    def tell(self, request: Any, reply: Reply) -> None:
        """Take the reply to the request that `ask` returned last, of the kinds that it returns."""

    def outcome(self) -> Outcome:
        """Return the decision; called once `ask` has returned None."""


class Strategy(Protocol):
    """Made from its spec's parameters; raises ValueError on values that do not make sense.

    What it may offer besides is in `bench.contracts.abilities`: bounds on its cost, and parameters
    that follow from others.

    Every request must name cells of the problem, and none that was asked for before; a mixture
    sums to one. Whatever does not, or raises, fails that image and names the plugin. The arrays
    that it is handed are read-only.

    Attributes:
        draws: N, the draws of the plan.
    """

    draws: int

    def start(self, problem: Problem) -> Session:
        """Begin an image."""


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
        shared = np.isfinite(difference)
        return paired_mean(difference[shared], self.problem.weights[shared])


def paired_mean(difference: Floats, weights: Floats) -> tuple[float, float]:
    """Return mean and standard error of paired differences in timestep order.

    The variance is taken from neighbouring timesteps (the successive-difference estimator for
    systematic samples, Wolter, *Introduction to Variance Estimation*, 2007, ch. 8): the draws are
    stratified over the timesteps, and the trend along them is not noise.

    Args:
        difference: float64 [n], ordered by timestep.
        weights: float64 [n], relative weight of each draw.

    Returns:
        The weighted mean and its standard error; (0, 0) of nothing, an error of inf of one.
    """
    n = len(difference)
    if n == 0:
        return 0.0, 0.0
    total = float(weights.sum())
    mean = float(difference @ weights) / total
    if n == 1:
        return mean, inf
    steps = np.diff(difference * weights)
    variance = float(steps @ steps) / (2 * (n - 1))
    return mean, sqrt(n * variance) / total


def confidence(margin: float, stderr: float) -> float:
    """Return the probability that a normal mean of which these were seen is positive.

    NaN where one draw was seen, which says nothing of others.
    """
    if isinf(stderr):
        return nan
    if stderr > 0:
        return 0.5 * (1.0 + erf(margin / stderr / sqrt(2.0)))
    return float(margin > 0 or 0.5)
