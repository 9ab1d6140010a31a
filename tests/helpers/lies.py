"""Decisions and facts that an executor or a worker cannot have got from the run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.contracts.dataset import Shortlisted
from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts


def changed(**changes: Any) -> Callable[[Any], Any]:
    return lambda value: replace(value, **changes)


def of_sample(**changes: Any) -> Callable[[Decided], Decided]:
    return lambda decided: replace(decided, sample=replace(decided.sample, **changes))


def of_outcome(**changes: Callable[[Any], Any]) -> Callable[[Decided], Decided]:
    def apply(decided: Decided) -> Decided:
        assert decided.outcome is not None
        values = {name: change(getattr(decided.outcome, name)) for name, change in changes.items()}
        return replace(decided, outcome=replace(decided.outcome, **values))

    return apply


def first_is(label: int) -> Callable[[Decided], Decided]:
    return of_outcome(ranking=lambda ranking: np.array([label, *ranking[1:]]))


def another_label(decided: Decided) -> Decided:
    return of_sample(label=(decided.sample.label + 1) % 10)(decided)


# Of a run with ten classes and its errors, full sweep.
DECISIONS: dict[str, Callable[[Decided], Any]] = {
    "nothing": lambda decided: None,
    "texts": lambda decided: "right",
    "no sample": changed(sample=None),
    "a list as the id": of_sample(sample_id=["a"]),
    "an unknown image": of_sample(sample_id="nobody's"),
    "another label": another_label,
    "a label in words": of_sample(label="three"),
    "an array as the label": of_sample(label=np.arange(2)),
    "a group": of_sample(group="a"),
    "candidates": of_sample(shortlisted=Shortlisted((0, 1))),
    "a class that is not there": first_is(99),
    "a negative class": first_is(-1),
    "a class twice": of_outcome(ranking=lambda ranking: ranking[[0, 0, *range(2, 10)]]),
    "the next class": of_outcome(ranking=lambda ranking: (ranking + 1) % 10),
    "a class too many": of_outcome(ranking=lambda ranking: ranking + 1),
    "too few classes": of_outcome(ranking=lambda ranking: ranking[:5]),
    "scores that are none": of_outcome(scores=lambda scores: scores * np.nan),
    "scores as texts": of_outcome(scores=lambda scores: scores.astype(str)),
    "a margin that is none": of_outcome(margin=lambda margin: float("nan")),
    "an infinite margin": of_outcome(margin=lambda margin: float("inf")),
    "a margin in words": of_outcome(margin=lambda margin: "wide"),
    "a negative error": of_outcome(margin_stderr=lambda stderr: -1.0),
    "a certainty of 7": of_outcome(confidence=lambda confidence: 7.0),
    "another end": of_outcome(decided_by=lambda end: "luck"),
    "an outcome of another type": changed(outcome={"ranking": [0]}),
    "no decision": changed(outcome=None),
    "an error that is no text": changed(outcome=None, error=3),
    "negative cost": changed(evaluations=-5),
    "a cost in words": changed(evaluations="many"),
    "a cost that is none": changed(equivalents=float("nan")),
    "errors of another shape": lambda decided: replace(
        decided, cells=[(request, errors[:, :1]) for request, errors in decided.cells]
    ),
    "errors that are none": lambda decided: replace(
        decided, cells=[(request, errors * np.nan) for request, errors in decided.cells]
    ),
    "errors of a draw that is not there": lambda decided: replace(
        decided,
        cells=[(replace(r, draws=r.draws + 1), errors) for r, errors in decided.cells],
    ),
    "no errors": changed(cells=[]),
    "errors that are no list": changed(cells=7),
}


def of_problem(**changes: Callable[[Any], Any]) -> Callable[[ModelFacts], ModelFacts]:
    def apply(facts: ModelFacts) -> ModelFacts:
        values = {n: change(getattr(facts.problem, n)) for n, change in changes.items()}
        return replace(facts, problem=replace(facts.problem, **values))

    return apply


FACTS: dict[str, Callable[[ModelFacts], Any]] = {
    "no facts": lambda facts: None,
    "a table": lambda facts: {"problem": facts.problem},
    "warnings that are numbers": changed(warnings=[3]),
    "a text as warnings": changed(warnings="careful"),
    "warnings that are none": changed(warnings=None),
    "a fit that is a list": changed(fitted=["a"]),
    "a fit that no document holds": changed(fitted={"images": object()}),
    "a fit with no number": changed(fitted={"loss": float("nan")}),
    "no problem": changed(problem=None),
    "levels in words": changed(levels="all"),
    "draws too few": of_problem(timesteps=lambda t: t[:1], weights=lambda w: w[:1]),
    "draws in words": of_problem(timesteps=lambda t: t.astype(str)),
    "draws that are no level": of_problem(timesteps=lambda t: t + 10_000),
    "negative weights": of_problem(weights=lambda w: -w),
    "weights that are none": of_problem(weights=lambda w: w * np.nan),
    "a class too few": of_problem(class_of_prompt=lambda c: c[:-1]),
}
