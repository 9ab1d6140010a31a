"""From the decisions on an item's images, or on an image's candidates, to one decision.

Each image of an item asks which of the item's texts fits. Its problem counts the item's texts from
0 on, so a strategy sees no difference. When the last image is decided, the decisions are joined.

An image with candidates asks about these classes alone, counted from 0. The other classes are never
evaluated: they have no draws and a score of infinity, and rank behind the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample, asks_for_images, pairing_of
from bench.contracts.decision import Decided, Interview, reduced
from bench.contracts.strategy import Evaluate, Floats, Ints, Outcome, Problem, Strategy
from bench.inputs.templates import Columns, make_columns


@dataclass(frozen=True)
class Question:
    """What every image of a sample asks.

    Attributes:
        problem: as its strategy sees it.
        columns: the prompts behind each column of the problem.
        texts: of each prompt, its index in the pool of texts; None: that index itself.
    """

    problem: Problem
    columns: Columns
    texts: Ints | None = None

    def cells(self, request: Evaluate) -> tuple[Ints, Ints]:
        """Return texts (indices in the pool) and draws of a block's cells; see `Columns.cells`."""
        prompts, draws = self.columns.cells(request.prompts, request.draws)
        return (prompts if self.texts is None else self.texts[prompts]), draws


def plain_question(problem: Problem) -> Question:
    """Return the question whose columns are its prompts."""
    return Question(problem, make_columns(problem.class_of_prompt, "best", len(problem.timesteps)))


class Questions:
    """The question of each sample: of items with as many texts it is one problem.

    Args:
        shared: of samples that share the prompts.
    """

    def __init__(self, shared: Question) -> None:
        self.shared = shared
        self._own: dict[int, Question] = {}

    def of(self, sample: Sample) -> Question:
        """Return a sample's question."""
        if sample.candidates is not None:
            shared = self.shared
            return Question(*narrowed(shared.problem, shared.columns, sample.candidates))
        if sample.item is None:
            return self.shared
        texts = len(sample.item.texts)
        if texts not in self._own:
            problem = replace(
                self.shared.problem, class_of_prompt=np.arange(texts), can_linearise=False
            )
            self._own[texts] = plain_question(problem)
        return replace(self._own[texts], texts=np.array(sample.item.texts, dtype=np.int64))


class Joint:
    """A sample under way: an interview for each of its images.

    Args:
        sample: an image with the shared prompts, or an item.
        strategy: decides each image.
        question: what each asks.
        problem: of all classes, where the sample has candidates among them.
    """

    def __init__(
        self,
        sample: Sample,
        strategy: Strategy,
        question: Question,
        problem: Problem | None = None,
    ) -> None:
        self.sample, self.question, self.problem = sample, question, problem
        self.interviews = [Interview(sample, strategy, question.problem) for _ in sample.images]
        self._compare = strategy.same_draws
        self._left = len(self.interviews)

    def ended(self) -> Decided | None:
        """Take note that one more image is decided; return the whole when it was the last."""
        self._left -= 1
        if self._left:
            return None
        parts, candidates = [i.decided for i in self.interviews], self.sample.candidates
        if candidates is not None and self.problem is not None:
            return widened(parts[0], self.problem, candidates)
        return join(self.question.problem, parts, self._compare)


def join(problem: Problem, parts: Sequence[Decided], compare: bool) -> Decided:
    """Return what became of a sample from what became of its images.

    Args:
        problem: what each image asked.
        parts: the images, in order.
        compare: whether all of their errors are on the same draws, so that images compare.
    """
    sample = parts[0].sample
    if sample.item is None:
        return parts[0]
    images, texts = sample.item.shape
    whole = Decided(sample)
    for number, part in enumerate(parts):
        whole.evaluations += part.evaluations
        whole.equivalents += part.equivalents
        whole.cells += [
            (Evaluate(number * texts + request.prompts, request.draws), values)
            for request, values in part.cells
        ]
        if part.error is not None and whole.error is None:
            whole.error = part.error if images == 1 else f"image {number + 1}: {part.error}"
    outcomes = [part.outcome for part in parts if part.outcome is not None]
    if whole.error is not None or len(outcomes) < images:
        whole.error = whole.error or "an image of it was not decided"
        return whole
    if asks_for_images(images, texts):
        if not compare:
            whole.error = "its strategy does not compare images"
            return whole
        among = replace(problem, class_of_prompt=np.arange(images))
        whole.outcome = _against_ties(reduced(among, whole.cells), sample.label)
        return whole
    pairing = pairing_of(sample.label, images, texts)
    decisions = [_against_ties(o, right) for o, right in zip(outcomes, pairing, strict=True)]
    whole.outcome = decisions[0] if images == 1 else _joint(decisions)
    if images > 1 and compare:
        whole.pairs = np.stack([outcome.scores for outcome in outcomes])
        text_right = int(whole.outcome.ranking[0]) == sample.label
        whole.image_right = image_right(whole.pairs, pairing)
        whole.group_right = text_right and whole.image_right
    return whole


def image_right(scores: Floats, pairing: Sequence[int]) -> bool:
    """Tell whether each text's own image has a lower score for it than every other image.

    Args:
        scores: float64 [I, T].
        pairing: the text of each image.
    """
    own = scores[np.arange(len(pairing)), list(pairing)]
    others = scores[:, list(pairing)].copy()
    np.fill_diagonal(others, np.inf)
    return bool((own < others.min(axis=0)).all())


def _against_ties(outcome: Outcome, right: int) -> Outcome:
    """Return the outcome with the right candidate behind one of the same score: a tie is wrong.

    A scorer that cannot tell candidates apart would else be right wherever the right one is first.
    """
    ranking = outcome.ranking
    if len(ranking) < 2 or ranking[0] != right:
        return outcome
    second = ranking[1]
    same = outcome.scores[second] == outcome.scores[right]
    if not same or outcome.draws[second] != outcome.draws[right]:
        return outcome
    turned: NDArray[np.int64] = ranking.copy()
    turned[[0, 1]] = second, right
    return replace(outcome, ranking=turned)


def _joint(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome over all answers of an item whose images were decided one by one.

    An answer's score is the sum of its texts' scores, its draws the fewest behind one of them. The
    runner-up differs in one image, the one with the smallest margin.
    """
    texts = len(outcomes[0].scores)
    places = [np.argsort(outcome.ranking) for outcome in outcomes]
    answers = np.array(list(product(range(texts), repeat=len(outcomes))))
    behind = sum(place[answers[:, i]] for i, place in enumerate(places))
    scores = np.sum([o.scores[answers[:, i]] for i, o in enumerate(outcomes)], axis=0)
    draws = np.min([o.draws[answers[:, i]] for i, o in enumerate(outcomes)], axis=0)
    closest = min(outcomes, key=lambda outcome: outcome.margin)
    return Outcome(
        ranking=np.lexsort((scores, behind)),
        scores=scores,
        draws=draws,
        margin=closest.margin,
        margin_stderr=closest.margin_stderr,
        confidence=prod(outcome.confidence for outcome in outcomes),
        decided_by=_weakest([outcome.decided_by for outcome in outcomes]),
    )


def _weakest(ends: Sequence[str | None]) -> str | None:
    """Return what ended an item's images: `ceiling` where one of them was cut."""
    for end in ("ceiling", "bound", "exhausted"):
        if end in ends and None not in ends:
            return end
    return None


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
