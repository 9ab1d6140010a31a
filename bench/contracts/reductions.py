"""How the errors of a text's draws are put together to its score; lower is better.

    mean           the weighted mean error
    mean-softmax   minus the mean over draws of the text's softmax of the negative errors
    logsumexp      -log of the mean over draws of exp(-error), the likelihood of a mixture

Strategies know the mean. The others need every text on the same draws, and replace the scores of a
strategy that evaluates so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import (
    ErrorTable,
    Evaluate,
    Floats,
    Outcome,
    Problem,
    Reply,
    confidence,
    paired_mean,
)

if TYPE_CHECKING:
    Cells = Sequence[tuple[Evaluate, NDArray[np.float32]]]

MEAN = "mean"
REDUCTIONS = (MEAN, "mean-softmax", "logsumexp")


def reduced(problem: Problem, cells: Cells) -> Outcome:
    """Return the outcome of errors, all prompts on the same draws, by the problem's reduction.

    Args:
        problem: the question.
        cells: blocks with their errors, float32 [prompts, draws].

    Raises:
        ValueError: a prompt lacks a draw that another one has.
    """
    table = ErrorTable(problem)
    for request, values in cells:
        table.tell(request, Reply(values, float(values.size)))
    if problem.reduction == MEAN:
        return table.outcome()
    known = np.isfinite(table.errors)
    if not (known == known[0]).all():
        raise ValueError(f"{problem.reduction} needs all prompts on the same draws")
    errors, weights = table.errors[:, known[0]].astype(np.float64), problem.weights[known[0]]
    scores, terms = _terms(errors, weights, problem.reduction)
    order = np.lexsort((np.arange(len(scores)), scores))
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = order[np.sort(first)]  # each class's best prompt, best class first
    ranking = problem.class_of_prompt[best]
    by_class = best[np.argsort(ranking)]
    margin, stderr = np.inf, 0.0
    if len(best) > 1:
        margin = float(scores[best[1]] - scores[best[0]])
        stderr = paired_mean(terms[best[1]] - terms[best[0]], weights)[1]
    draws = np.full(len(ranking), int(known[0].sum()))
    return Outcome(ranking, scores[by_class], draws, margin, stderr, confidence(margin, stderr))


def _terms(errors: Floats, weights: Floats, reduction: str) -> tuple[Floats, Floats]:
    """Return scores, float64 [P], and what each draw adds to them, to first order, [P, n]."""
    if reduction == "mean-softmax":
        likely = np.exp(errors.min(axis=0) - errors)
        terms = -likely / likely.sum(axis=0)
        return np.average(terms, axis=1, weights=weights), terms
    least = errors.min(axis=1, keepdims=True)
    likely = np.exp(least - errors)
    mean = np.average(likely, axis=1, weights=weights)
    return least[:, 0] - np.log(mean), -likely / mean[:, None]
