"""From the errors of an image to its decision: reductions, and what is recorded of an image.

A reduction combines the errors of a text on its draws into the text's score; lower is better.

    mean           mean of the errors
    mean-softmax   negative mean over draws of the softmax, over texts, of the negative errors
    logsumexp      -log of the mean over draws of exp(-error), the likelihood of a mixture

All means have the weights of the draws. Strategies compute `mean`. The other reductions need all
texts on the same draws; they replace the scores of a strategy that evaluates such a full grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.strategy import (
    Bools,
    ErrorTable,
    Evaluate,
    Floats,
    Floats32,
    Linearise,
    Outcome,
    Problem,
    Reply,
    best_prompts,
    confidence,
    paired_mean,
)

Reduction = Literal["mean", "mean-softmax", "logsumexp"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
MEAN: Final = "mean"


def reduced(problem: Problem, cells: Sequence[tuple[Evaluate, Floats32]]) -> Outcome:
    """Return the outcome of blocks of errors, float32 [prompts, draws], by the problem's reduction.

    Raises ValueError if that is not the mean, and prompts were evaluated on different draws.
    """
    table = ErrorTable(problem)
    for request, values in cells:
        table.tell(request, Reply(values, float(values.size)))
    if problem.reduction == MEAN:
        return table.outcome()
    evaluated = np.isfinite(table.errors)
    drawn = evaluated[0]
    if not (evaluated == drawn).all():
        raise ValueError(f"{problem.reduction} requires all prompts on the same draws")
    errors, weights = table.errors[:, drawn].astype(np.float64), problem.weights[drawn]
    scores, terms = _TERMS[problem.reduction](errors, weights)
    best = best_prompts(problem, scores)
    ranking = problem.class_of_prompt[best]
    margin, stderr = np.inf, 0.0
    if len(best) > 1:
        margin = float(scores[best[1]] - scores[best[0]])
        stderr = paired_mean(terms[best[1]] - terms[best[0]], weights)[1]
    draws = np.full(len(ranking), int(drawn.sum()))
    scores = scores[best[np.argsort(ranking)]]
    return Outcome(ranking, scores, draws, margin, stderr, confidence(margin, stderr))


def tied_with(outcome: Outcome, cells: Sequence[tuple[Evaluate, Floats32]], answer: int) -> Bools:
    """Return which answers tie with one of those that a strategy decided among, bool [C].

    A tie is the same score on the same number of draws, or, with one that was evaluated on other
    draws, the same errors on all draws that both have. `cells` are those of one image, whose
    prompts are the answers.
    """
    same_score = outcome.scores == outcome.scores[answer]
    tied = np.asarray(same_score & (outcome.draws == outcome.draws[answer]))
    others = outcome.draws != outcome.draws[answer]
    if not cells or not others.any():
        return tied
    n_draws = 1 + max(int(request.draws.max()) for request, _ in cells)
    errors = np.full((len(tied), n_draws), np.nan, dtype=np.float32)
    for request, values in cells:
        errors[np.ix_(request.prompts, request.draws)] = values
    own = errors[answer]
    both = np.isfinite(errors) & np.isfinite(own)
    equal = ((errors == own) | ~both).all(axis=1) & both.any(axis=1)
    return np.asarray(np.where(others, equal, tied))


def _mean_softmax(errors: Floats, weights: Floats) -> tuple[Floats, Floats]:
    likely = np.exp(errors.min(axis=0) - errors)  # up to a factor that the softmax cancels
    terms = -likely / likely.sum(axis=0)
    return np.average(terms, axis=1, weights=weights), terms


def _logsumexp(errors: Floats, weights: Floats) -> tuple[Floats, Floats]:
    least = errors.min(axis=1, keepdims=True)
    likely = np.exp(least - errors)
    mean = np.average(likely, axis=1, weights=weights)
    return least[:, 0] - np.log(mean), -likely / mean[:, None]  # -log m changes by -dm / m


# Functions of errors, [P, n], and weights, [n], that return the scores, float64 [P], and the
# first-order contribution of each draw to them, [P, n].
_TERMS = {"mean-softmax": _mean_softmax, "logsumexp": _logsumexp}


@dataclass
class Decided:
    """Result of scoring one sample: an outcome, or an error message, and what it took."""

    sample: Sample
    outcome: Outcome | None = None
    error: str | None = None
    evaluations: int = 0  # forward passes of the network
    linearisations: int = 0  # number of linearised draws
    equivalents: float = 0.0  # cost of both, in evaluations
    cells: list[tuple[Evaluate, Floats32]] = field(default_factory=list)
    """All blocks of cells requested, in order, with their errors, float32 [prompts, draws]."""
    linearised: list[tuple[Linearise, Floats32]] = field(default_factory=list)
    """All linearisations requested, in order, with their first-order errors, float32 [P, draws]."""
    pairs: Floats | None = None
    """Score of each image of an item with each text, float64 [I, T].

    None for an item of one image, or if the pairs were not all evaluated on the same draws.
    """
    image_right: bool | None = None
    """Whether each text's own image has the lowest score for it; None as for `pairs`."""
    group_right: bool | None = None  # whether answer and images are right; None as for `pairs`

    @property
    def winner(self) -> int | None:
        """The winning answer, which is the label if any right one wins; None if it failed."""
        if self.outcome is None:
            return None
        first = int(self.outcome.ranking[0])
        return self.sample.label if first in self.sample.right else first
