"""Items and images with candidate classes: what a strategy decides, and how decisions are combined.

An item is a sample with texts of its own, and often several images. A strategy decides for each
image which of these texts fits it. The texts are numbered from 0, so a strategy need not know about
items. When all images are decided, their decisions are combined into one. If an item asks which of
several images fits its text, that decision follows from the errors of all images. Which answers are
right, a strategy never knows.

With candidates, a strategy decides only among these classes, texts or images, numbered from 0. All
others have no draws and an infinite score, and rank behind the candidates: those of items in the
order of the run that the candidates are from, as far as it keeps that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from bench.contracts.dataset import Sample, asks_for_images, n_answers, pairing_of
from bench.contracts.decision import Decided, reduced, tied_with
from bench.contracts.strategy import Evaluate, Floats, Floats32, Ints, Outcome, Problem
from bench.engine.asking import CheckedSession, CheckedStrategy
from bench.inputs.prompts import Columns, make_columns

WEAKEST_FIRST = ("ceiling", "tie", "bound", "exhausted")  # values of `Outcome.decided_by`


@dataclass(frozen=True)
class PromptedProblem:
    """A problem for a strategy, and the texts that its prompts stand for."""

    problem: Problem
    columns: Columns  # the prompts behind each column of the problem
    texts: Ints | None = None
    """Index of each prompt in the pool of texts; None: the prompt's own index."""

    def cells(self, request: Evaluate) -> tuple[Ints, Ints]:
        """Return the text (index in the pool) and the draw of each cell, int64 [cells] each."""
        prompts, draws = self.columns.cells(request.prompts, request.draws)
        return (prompts if self.texts is None else self.texts[prompts]), draws

    def of(self, sample: Sample) -> "PromptedProblem":
        """Return the problem of a sample: this one, or that of its own texts or candidates."""
        whole, candidates = self, sample.candidates
        if sample.item is not None:
            texts = np.array(sample.item.texts, dtype=np.int64)
            own = replace(self.problem, class_of_prompt=np.arange(len(texts)), can_linearise=False)
            whole = replace(plain_problem(own), texts=texts)
        if candidates is None or (sample.item and asks_for_images(*sample.item.shape)):
            return whole
        return narrowed(whole, candidates)


def plain_problem(problem: Problem) -> PromptedProblem:
    """Return a problem whose columns are its prompts."""
    return PromptedProblem(problem, make_columns(problem.class_of_prompt, "best"))


class SampleInProgress:
    """A sample in progress, with one session per image; `run` is the problem of the whole run."""

    def __init__(self, sample: Sample, strategy: CheckedStrategy, run: PromptedProblem) -> None:
        self.sample, self.run, self.prompted = sample, run, run.of(sample)
        problem = self.prompted.problem
        self.sessions = [CheckedSession(sample, strategy, problem) for _ in sample.images]
        self._compare = strategy.same_draws
        self._left = len(self.sessions)

    def finish_image(self) -> Decided | None:
        """Count one more image as decided. Return the sample's decision if it was the last."""
        self._left -= 1
        if self._left:
            return None
        parts = [session.decided for session in self.sessions]
        whole = join(self.prompted.problem, parts, self._compare)
        if self.sample.shortlisted is None:
            return whole
        answers = self.run.problem
        if (item := self.sample.item) is not None:
            answers = replace(answers, class_of_prompt=np.arange(n_answers(*item.shape)))
        return widened(whole, answers)


def join(problem: Problem, parts: Sequence[Decided], compare: bool) -> Decided:
    """Join the decisions of a sample's images; `compare`: all images have the same draws."""
    sample = parts[0].sample
    if sample.item is None:
        return parts[0]
    images, texts = len(parts), len(problem.class_of_prompt)
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
        whole.error = whole.error or "one of its images was not decided"
        return whole
    if asks_for_images(*sample.item.shape):
        if not compare:
            whole.error = "its strategy does not compare images"
            return whole
        among = replace(problem, class_of_prompt=np.arange(images))
        whole.outcome = _against_ties(reduced(among, whole.cells), _right_candidates(sample), ())
        return whole
    if images == 1:
        whole.outcome = _against_ties(outcomes[0], _right_candidates(sample), parts[0].cells)
        return whole
    pairing = pairing_of(sample.label, images, texts)
    decisions = [
        _against_ties(outcome, (right,), part.cells)
        for outcome, right, part in zip(outcomes, pairing, parts, strict=True)
    ]
    whole.outcome = _combined(decisions)
    if images > 1 and compare:
        whole.pairs = np.stack([outcome.scores for outcome in outcomes])
        text_right = int(whole.outcome.ranking[0]) == sample.label
        whole.image_right = image_right(whole.pairs, pairing)
        whole.group_right = text_right and whole.image_right
    return whole


def image_right(scores: Floats, pairing: Sequence[int]) -> bool:
    """Return whether the text of each image scores best on it, by scores float64 [I, T]."""
    own = scores[np.arange(len(pairing)), list(pairing)]
    others = scores[:, list(pairing)].copy()
    np.fill_diagonal(others, np.inf)
    return bool((own < others.min(axis=0)).all())


def _right_candidates(sample: Sample) -> tuple[int, ...]:
    """Return the places of the right answers among the sorted candidates, or among all answers."""
    if sample.candidates is None:
        return sample.right
    return tuple(n for n, answer in enumerate(sorted(sample.candidates)) if answer in sample.right)


def _against_ties(
    outcome: Outcome, right: tuple[int, ...], cells: Sequence[tuple[Evaluate, Floats32]]
) -> Outcome:
    """Return the outcome, with a wrong candidate first if a tie alone puts a right one there.

    Otherwise a scorer that cannot tell candidates apart would be right whenever the right one
    happens to be listed first. `cells` are those of the image; see `tied_with`.
    """
    ranking = outcome.ranking
    wrong = ranking[~np.isin(ranking, right)]
    if not len(wrong) or wrong[0] == ranking[0]:
        return outcome
    rivals = wrong[tied_with(outcome, cells, int(ranking[0]))[wrong]]
    if not len(rivals):
        return outcome
    rival = rivals[0]
    return replace(outcome, ranking=np.concatenate([[rival], ranking[ranking != rival]]))


def _combined(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome over all answers to an item, from the outcomes of its images.

    An answer chooses a text for each image. Answers are ordered by the sum of their texts' ranks,
    then by the sum of the scores, and have the smallest number of draws of their texts. The
    runner-up differs from the winner in the image with the smallest margin.
    """
    texts = len(outcomes[0].scores)
    places = [np.argsort(outcome.ranking) for outcome in outcomes]
    answers = np.array(list(product(range(texts), repeat=len(outcomes))))
    rank_sums = sum(place[answers[:, i]] for i, place in enumerate(places))
    scores = np.sum([o.scores[answers[:, i]] for i, o in enumerate(outcomes)], axis=0)
    draws = np.min([o.draws[answers[:, i]] for i, o in enumerate(outcomes)], axis=0)
    closest = min(outcomes, key=lambda outcome: outcome.margin)
    reasons = [outcome.decided_by for outcome in outcomes]
    all_reported = None not in reasons
    return Outcome(
        ranking=np.lexsort((scores, rank_sums)),
        scores=scores,
        draws=draws,
        margin=closest.margin,
        margin_stderr=closest.margin_stderr,
        confidence=prod(outcome.confidence for outcome in outcomes),
        decided_by=next(r for r in WEAKEST_FIRST if r in reasons) if all_reported else None,
    )


def narrowed(prompted: PromptedProblem, candidates: tuple[int, ...]) -> PromptedProblem:
    """Return the problem narrowed to some of the classes."""
    problem, columns = prompted.problem, prompted.columns
    kept = _columns_of(problem, candidates)
    classes = np.searchsorted(sorted(candidates), problem.class_of_prompt[kept])
    fewer = replace(problem, class_of_prompt=classes, can_linearise=False)
    columns = replace(columns, class_of_column=classes, members=columns.members[kept])
    return PromptedProblem(fewer, columns, prompted.texts)


def widened(decided: Decided, problem: Problem) -> Decided:
    """Turn a decision among candidates into one among all answers, in place, and return it."""
    shortlisted = decided.sample.shortlisted
    assert shortlisted is not None
    candidates, known = shortlisted.candidates, np.array(shortlisted.rest, np.int64)
    kept = _columns_of(problem, candidates)
    decided.cells = [
        (Evaluate(kept[request.prompts], request.draws), values)
        for request, values in decided.cells
    ]
    if (outcome := decided.outcome) is not None:
        classes, chosen = np.unique(problem.class_of_prompt), np.array(sorted(candidates))
        scores, draws = np.full(len(classes), np.inf), np.zeros(len(classes), np.int64)
        scores[chosen], draws[chosen] = outcome.scores, outcome.draws
        others = np.setdiff1d(classes, [*chosen, *known])
        ranking = np.concatenate([chosen[outcome.ranking], known, others])
        decided.outcome = replace(outcome, ranking=ranking, scores=scores, draws=draws)
    return decided


def _columns_of(problem: Problem, candidates: tuple[int, ...]) -> Ints:
    """Return the columns of the candidates, in their order among all columns."""
    return np.flatnonzero(np.isin(problem.class_of_prompt, candidates))
