"""Some of the classes: the question about an image's candidates, and its answer about all classes.

A strategy sees a problem whose classes are the candidates, counted from 0. Classes that are none
were never evaluated: they have no draws and a score of infinity, and stand behind the candidates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.contracts.decision import Decided
from bench.contracts.strategy import Evaluate, Ints, Outcome, Problem
from bench.inputs.templates import Columns


def narrowed(
    problem: Problem, columns: Columns, candidates: tuple[int, ...]
) -> tuple[Problem, Columns]:
    """Return the problem of some classes, and the prompts behind its columns.

    Args:
        problem: of all classes.
        columns: of all classes.
        candidates: the classes.
    """
    kept = kept_columns(problem, candidates)
    place = {label: n for n, label in enumerate(sorted(candidates))}
    classes = np.array([place[int(label)] for label in problem.class_of_prompt[kept]])
    fewer = replace(problem, class_of_prompt=classes, can_linearise=False)
    return fewer, replace(columns, class_of_column=classes, members=columns.members[kept])


def kept_columns(problem: Problem, candidates: tuple[int, ...]) -> Ints:
    """Return the columns of the candidates, in their order among all columns."""
    return np.flatnonzero(np.isin(problem.class_of_prompt, candidates))


def widened(decided: Decided, problem: Problem, candidates: tuple[int, ...]) -> Decided:
    """Return what became of an image among its candidates as a decision among all classes.

    Args:
        decided: among the candidates.
        problem: of all classes.
        candidates: the classes, best first of the run that named them.
    """
    kept = kept_columns(problem, candidates)
    decided.cells = [
        (Evaluate(kept[request.prompts], request.draws), values)
        for request, values in decided.cells
    ]
    if (outcome := decided.outcome) is not None:
        decided.outcome = _widened(outcome, problem, np.array(sorted(candidates)))
    return decided


def _widened(outcome: Outcome, problem: Problem, candidates: Ints) -> Outcome:
    every = np.unique(problem.class_of_prompt)
    scores, draws = np.full(len(every), np.inf), np.zeros(len(every), np.int64)
    scores[candidates], draws[candidates] = outcome.scores, outcome.draws
    rest = np.setdiff1d(every, candidates)
    ranking = np.concatenate([candidates[outcome.ranking], rest])
    return replace(outcome, ranking=ranking, scores=scores, draws=draws)
