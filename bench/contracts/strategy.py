"""The strategy contract: request cells or linearisations, receive errors, decide; numpy only.

A strategy never sees the model, so it runs on a model and on recorded errors alike:

    session = strategy.start(problem)
    while (request := session.ask()) is not None:
        session.tell(request, reply)
    session.outcome()
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import erf, inf, isinf, nan, sqrt
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backbone import LINEARISATION_COST
from bench.contracts.typed import Bound, annotations_of, mismatch

DecidedBy = Literal["bound", "ceiling", "exhausted", "tie"]
DECIDED_BY: tuple[str, ...] = get_args(DecidedBy)
NO_PARENT = -1  # in `Problem.parents`

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Cost = Annotated[float, Bound("at least", 0)]


def make_read_only(data: object) -> None:
    """Replace all arrays of a dataclass, those in its mappings included, by read-only views."""
    for name, value in vars(data).items():
        object.__setattr__(data, name, _read_only(value))


def _read_only(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    return {n: _read_only(v) for n, v in value.items()} if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Problem:
    """What a strategy has to decide about an image. It is the same for all images of a run.

    Its arrays are read-only.

    Attributes:
        class_of_prompt: class index of each prompt, int64 [P].
        timesteps: timestep of each draw, int64 [N]. A classifier backbone has one draw.
        weights: weight of each draw in a score, float64 [N]; ones without a weighting.
        seed: seed for strategies that make random choices.
        can_linearise: whether `Linearise` requests are answered, by a backbone with gradients or
            from a recording.
        reduction: how the errors of a prompt on its draws are combined into its score; see
            `bench.contracts.decision`. A strategy may assume the mean: with another reduction only
            strategies with `same_draws` are used, and their scores are recomputed.
        cell_cost: cost of one cell, in evaluations. It is above 1 if several templates make up one
            error, or guidance predicts the empty prompt again for each cell.
        null_cost: additional cost of each draw of a request, in evaluations, for a prediction of
            the empty prompt that all cells of an image and draw share.
        linearisation_cost: cost of one linearised draw, in evaluations.
        antithetic: whether draws 2k and 2k + 1 share a level and have opposite noise.
        parents: the tree of classes, int64 [C + J], for strategies with `uses_hierarchy`: the
            parent of each of C classes and J inner nodes; inner nodes are numbered from C, and
            `NO_PARENT` is that of a root. A prompt of an inner node has the node's number as its
            class. None without a tree.
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
    antithetic: bool = False
    parents: Ints | None = None

    def __post_init__(self) -> None:
        make_read_only(self)

    @cached_property
    def n_classes(self) -> int:
        """C, the number of classes, not counting inner nodes of a tree."""
        inner = 0 if self.parents is None else len(np.unique(self.parents[self.parents >= 0]))
        return len(np.unique(self.class_of_prompt)) - inner

    def pairs(self, draws: Ints) -> Ints | None:
        """Return the pair of each draw, int64 [n]; None if draws are not paired."""
        return draws // 2 if self.antithetic else None

    def price(self, prompts: int, draws: int) -> float:
        """Return the cost in evaluations of one request for that many prompts and draws."""
        return draws * (prompts * self.cell_cost + self.null_cost)


@dataclass(frozen=True)
class Evaluate:
    """A request for a block of cells: each of `prompts` on each of `draws`, int64 indices."""

    prompts: Ints
    draws: Ints


@dataclass(frozen=True)
class Linearise:
    """A request for first-order errors of *all* prompts on some draws, at one gradient per draw.

    The error e of a cell is a differentiable function of the conditioning c. At the mixture c_0 =
    sum_p mixture_p c_p, a forward and a backward pass give e(c_0) and its gradient g. Then e(c_0) +
    <g, c_p - c_0> approximates the error of every prompt p, at a cost that does not depend on the
    number of prompts. Diffusion-TTA (Prabhudesai et al., NeurIPS 2023) descends this gradient.

    It may only be requested if `Problem.can_linearise`. `draws` are indices, int64 [n], and the
    `mixture`, float64 [P], must sum to 1.
    """

    draws: Ints
    mixture: Floats


@dataclass(frozen=True)
class Reply:
    """The reply to a request, with its cost in evaluations.

    `values` are errors, float32 [len(prompts), len(draws)], or first-order errors, [P, len(draws)].
    """

    values: Floats32
    cost: float


@dataclass(frozen=True)
class Outcome:
    """A strategy's decision about one image.

    Attributes:
        ranking: class indices, best first, int64 [C].
        scores: score of the best prompt of each class, float64 [C]; lower is better.
        draws: number of draws behind each of these scores, int64 [C].
        margin: mean difference between the errors of runner-up and winner on the draws they share.
        margin_stderr: standard error of the margin.
        confidence: probability, assuming a normal margin, that the winner's expected error is below
            the runner-up's; NaN if unknown.
        decided_by: what ended the image, if the strategy reports it: `bound` (its test left one
            class), `ceiling` (a limit on the cost stopped it or left prompts out, so no promise
            holds), `exhausted` (all draws were used) or `tie` (the best classes have equally many
            votes, or differ by no more than the user's tolerance).
    """

    ranking: Ints
    scores: Floats
    draws: Ints
    margin: float
    margin_stderr: float
    confidence: float
    decided_by: DecidedBy | None = None


class Session(Protocol):
    """The state of one image that is being scored. At most one request is outstanding."""

    def ask(self) -> Evaluate | Linearise | None:
        """Return the next request, or None once the image is decided."""

    def tell(self, request: Any, reply: Reply) -> None:
        """Receive the reply to the request that `ask` returned last."""

    def outcome(self) -> Outcome:
        """Return the decision. It is called once, after `ask` has returned None."""


@dataclass(frozen=True)
class Replaced:
    """A strategy that another one replaces to save cost. A wrong type raises ValueError.

    Attributes:
        strategy: its registered name.
        equivalents: its cost per image, in evaluations.
        settings: parameters with which the replacing strategy never costs more.
    """

    strategy: str
    equivalents: Cost
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name, kind in annotations_of(type(self)).items():
            if wrong := mismatch(getattr(self, name), kind, name):
                raise ValueError(wrong)


def comparison_words(level: float, name: str = "") -> str:
    """Return a sentence about the level of a single comparison, perhaps of a parameter `name`."""
    which = "; ".join(filter(None, [name, "per comparison, not per image"]))
    return (
        "A class was dropped when one that is no worse would look so bad in at most"
        f" {100 * level:g} % of comparisons ({which})."
    )


class Strategy(ABC):
    """A strategy, constructed with the parameters of its spec. Invalid values raise ValueError.

    Only `draws` and `start` are required. A class that has them without subclassing gets the
    defaults of the other members.

    Each request must name cells of the problem that were not requested before, and the weights of a
    mixture must sum to 1. A bad request or an exception fails that image only, with a message that
    names the plugin. All arrays that a strategy receives are read-only.

    Attributes:
        draws: N, the number of draws in the plan.
        linearises: whether it needs linearisations.
        same_draws: whether every prompt is always evaluated on the same draws, and the lowest score
            wins. Only then are scores comparable across the images of an item; other strategies
            give such an item a text score alone.
        uses_hierarchy: whether it needs a tree of classes, `Problem.parents`, with prompts for its
            inner nodes. Other strategies get the prompts of the classes alone.
        settled: values of parameters that follow from other parameters; the run records them.
        level: significance level of a single comparison in the test that decides an image; None
            without a test.
        level_words: a sentence that says what the level means for an answer; None for a general one
            about a single comparison.
    """

    draws: int
    linearises: bool = False
    same_draws: bool = False
    uses_hierarchy: bool = False
    settled: Mapping[str, Any] = MappingProxyType({})
    level: float | None = None
    level_words: str | None = None

    @staticmethod
    def sweep(
        n_draws: int, linearised: bool, learned: Mapping[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        """Return the settings that `bench sweep` tries.

        Without any, the strategy is tried only if the user names it. `linearised` says whether the
        recording has first-order errors, and `learned` has parameters, such as `reach`, that were
        learned from other images. `n_draws` is N of the recording.
        """
        return ()

    @abstractmethod
    def start(self, problem: Problem) -> Session:
        """Start scoring one image."""

    def check(self, problem: Problem) -> None:  # noqa: B027  # most strategies refuse nothing
        """Check a problem before any image is scored.

        Raises ValueError if the strategy cannot be used on it.
        """

    def at_most(self, problem: Problem) -> Cost:
        """Return an upper bound of the sum of `Reply.cost` for one image.

        The default holds for any strategy: a separate request for each prompt and draw. A strategy
        that requests each draw once has the tighter bound `problem.price(P, N)`.
        """
        return len(problem.class_of_prompt) * problem.price(1, len(problem.timesteps))

    def at_least(self, problem: Problem) -> Cost | None:
        """Return a lower bound of the sum of `Reply.cost` for one image, or None if unknown."""
        return None

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return the strategy that it replaces to save cost, or None if it never costs more."""
        return None

    def statistics(self, problem: Problem, errors: Floats, first_order: Floats | None) -> Any:
        """Return what `learn` needs to know of one recorded image.

        `errors` are those of all prompts on all draws, float64 [P, N], and `first_order` those of a
        linearisation at the mean of the prompts, or None if the strategy does not linearise.
        """
        return None

    def learn(self, statistics: Sequence[Any]) -> Mapping[str, Mapping[str, Any]]:
        """Return settings learned from recorded images, by a short description of each.

        `bench learn` tries each of them on images that it was not learned from, together with this
        strategy's other parameters. A setting for which there are too few images is left out.
        `statistics` are those of the images. Raises ValueError if nothing can be learned from them.
        """
        return {}


class ErrorTable:
    """The errors of one image so far, float32 [P, N]; NaN for cells that are not evaluated."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        shape = (len(problem.class_of_prompt), len(problem.timesteps))
        self.errors = np.full(shape, np.nan, dtype=np.float32)
        # Running sums make `scores` O(P). They hardly depend on the order of the draws, because
        # float64 represents sums of thousands of float32 values almost exactly.
        self._draws = np.zeros(shape[0], dtype=np.int64)
        self._sums = np.zeros(shape[0])
        self._weights = np.zeros(shape[0])

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Add the errors of a request. Its cells must be new."""
        self.errors[np.asarray(request.prompts)[:, None], request.draws] = reply.values
        weights = self.problem.weights[request.draws]
        self._draws[request.prompts] += len(request.draws)
        self._sums[request.prompts] += (reply.values.astype(np.float64) * weights).sum(axis=1)
        self._weights[request.prompts] += weights.sum()

    def draws(self) -> Ints:
        """Return the number of draws of each prompt, int64 [P]."""
        return self._draws.copy()

    def scores(self) -> Floats:
        """Return the weighted mean error of each prompt, float64 [P]; inf without draws."""
        means = np.full(len(self._sums), inf)
        np.divide(self._sums, self._weights, out=means, where=self._weights > 0)
        return means

    def outcome(self, survived: Sequence[int] | Ints | None = None) -> Outcome:
        """Rank the classes by their best prompts and estimate the margin of the winner.

        `survived` is the number of stages that each prompt survived, [P]. Prompts with more stages
        rank first, whatever their scores. None ranks by score alone. Ties go to the lower index.
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
    """Return the index of the best prompt of each class, best class first, int64 [C].

    Inner nodes of a tree of classes are left out. See `ErrorTable.outcome` for `survived`.
    """
    stages = np.zeros(len(scores)) if survived is None else np.asarray(survived)
    order = np.lexsort((np.arange(len(scores)), scores, -stages))  # the last key decides first
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = np.asarray(order[np.sort(first)])
    if problem.parents is None:
        return best
    return np.asarray(best[problem.class_of_prompt[best] < problem.n_classes])


def paired_mean(
    difference: Floats, weights: Floats, pairs: Ints | None = None
) -> tuple[float, float]:
    """Return the mean of paired differences and its standard error.

    The variance is estimated from differences between neighbouring timesteps (the
    successive-difference estimator for systematic samples; Wolter, *Introduction to Variance
    Estimation*, 2007, ch. 8), because draws are stratified over the timesteps and the trend along
    them is not noise. Two draws with opposite noise are not independent, so each such pair is
    averaged to one value first. Both results are 0 if n is 0; the error is infinite if n is 1.

    With m values y of n_i draws each (weight · difference, averaged over a pair), the variance of a
    value is s² = sum (y_{i+1} − y_i)² / (2 (m − 1)), and that of the sum of all draws sum n_i² s².

    Args:
        difference: float64 [n], in the order of the timesteps.
        weights: relative weights of the draws, float64 [n].
        pairs: ascending number of each draw's pair, int64 [n]; None if draws are not paired.
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
    """Return the probability that a mean is positive, given a normal estimate and its error.

    NaN if the standard error is infinite, as after a single draw.
    """
    if isinf(stderr):
        return nan
    if stderr > 0:
        return 0.5 * (1.0 + erf(margin / stderr / sqrt(2.0)))
    return 1.0 if margin > 0 else 0.5
