"""What an executor returns, checked before anything of it is stored.

An executor may be anybody's, and its workers are processes of other machines. Whatever the run
knows itself is compared, and everything else must be what a record or a manifest can hold. Whether
a decision is right cannot be seen without scoring the image again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from typing_extensions import override

from bench.contracts.dataset import Sample, n_answers
from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts, OpenRun
from bench.contracts.levels import Levels
from bench.contracts.strategy import Outcome, Problem
from bench.contracts.typed import Bound, mismatch
from bench.discovery.guard import checked_answer, guard, one_line, warning_guard
from bench.engine.asking import checked_outcome
from bench.errors import BenchError, PluginError, quoted
from bench.running.content import PreparedRun
from bench.store.formats.documents import Rounded
from bench.store.formats.fields import validated
from bench.store.formats.journal import Record, is_record, make_record

FACTS: Mapping[str, Any] = {
    "problem": Problem,
    "levels": Levels | None,
    "fitted": Mapping[str, Any] | None,
    "warnings": Sequence[str],
    "rounding": Mapping[str, Any] | None,
}
NOT_CLOSED = "What it started may still run."
Memory = Annotated[int, Bound("at least", 0)] | None


def checked_facts(who: str, run: PreparedRun, facts: Any) -> ModelFacts:
    """Return the facts about a run's model; PluginError, which names `who`, if they are wrong."""
    with guard(who, "reading its model"):
        if not isinstance(facts, ModelFacts):
            raise PluginError(who, f"its model is {one_line(facts)}; expected ModelFacts")
        wrong = (mismatch(getattr(facts, name), FACTS[name], f"model.{name}") for name in FACTS)
        if problem := next(filter(None, wrong), None):
            raise PluginError(who, problem)
        fitted = facts.fitted
        if fitted is not None:
            fitted = json.loads(json.dumps(dict(fitted), allow_nan=False))
        if facts.rounding is not None:
            Rounded.model_validate(dict(facts.rounding))
        _check_problem(who, run, facts.problem, facts.levels)
    return replace(facts, fitted=fitted, warnings=list(facts.warnings))


def _check_problem(who: str, run: PreparedRun, problem: Problem, levels: Levels | None) -> None:
    draws, classes = run.names.n_draws, len(run.manifest.classes)
    steps, weights = np.asarray(problem.timesteps), np.asarray(problem.weights)
    if not steps.shape == weights.shape == (draws,):
        raise PluginError(who, f"model.problem must have {draws} draws, got {len(steps)}")
    count = np.inf if levels is None else len(levels)
    if steps.dtype.kind not in "iu" or steps.min() < 0 or steps.max() >= count:
        raise PluginError(who, "model.problem: a timestep is no row of the noise levels")
    if not (np.isfinite(weights).all() and weights.min() >= 0):
        raise PluginError(who, "model.problem: the weights must be finite, none negative")
    if run.split.items is None and problem.n_classes != classes:
        got = f"got {problem.n_classes}"
        raise PluginError(who, f"model.problem must have the run's {classes} classes, {got}")


def checked_decision(who: str, run: PreparedRun, decided: Any) -> Decided:
    """Return the decision of one of a run's images, with the run's own label.

    Raises PluginError, which names `who`, for a decision of another image, label, group or
    candidates, an outcome that a strategy could not return, or values that no record can hold.
    """
    with guard(who, "score()"):
        sample = decided.sample if isinstance(decided, Decided) else None
        name = sample.sample_id if isinstance(sample, Sample) else None
        if sample is None or not isinstance(name, str) or name not in run.split.row_of:
            raise PluginError(who, f"score() yielded {one_line(name or decided)}, no image")
        expected, own = _facts_of(run, name), {**vars(sample), "shape": None, "right": ()}
        if sample.item is not None:
            own |= {"shape": tuple(sample.item.shape), "right": sample.item.right}
        for fact, value in expected.items():
            if (got := own[fact]) != value:
                problem = f"{fact} {one_line(got)}; it has {one_line(value)}"
                raise PluginError(who, f"score() gave {quoted(name)} the {problem}")
        call = f"score(), of {quoted(name)}"
        _check_cells(who, call, run, decided)
        if (outcome := decided.outcome) is not None:
            outcome = _checked_outcome(who, call, run, decided)
        sample = replace(sample, label=expected["label"])
        checked: Decided = replace(decided, sample=sample, outcome=outcome)
        record = make_record(checked, 0.0)
        try:
            validated(record, Record, "a record")
        except ValueError as error:
            raise PluginError(who, f"{call}: what it took or scored {error}") from None
        if not is_record(record, len(run.manifest.classes)):
            raise PluginError(who, f"{call}: it is neither decided nor failed")
    return checked


def _facts_of(run: PreparedRun, name: str) -> dict[str, Any]:
    """Return what the run itself knows of an image."""
    split, place, shortlist = run.split, run.split.row_of[name], run.content.shortlist
    return {
        "label": split.labels[place],
        "group": None if split.group_names is None else split.group_names[place],
        "shape": None if split.items is None else split.items.shapes[place],
        "right": () if split.items is None else split.items.right_of(place),
        "shortlisted": None if shortlist is None else shortlist.of_sample[name],
    }


def _checked_outcome(who: str, call: str, run: PreparedRun, decided: Decided) -> Outcome:
    item = decided.sample.item
    classes = len(run.manifest.classes) if item is None else n_answers(*item.shape)
    assert decided.outcome is not None
    outcome = checked_outcome(decided.outcome, classes, who, call)
    one_image = item is None or item.shape[0] == 1
    compared = np.count_nonzero(np.isfinite(outcome.scores)) > 1
    # A strategy that does not know the margin does not know how certain it is, either.
    unknown = np.isnan(outcome.confidence) and not run.strategy.same_draws
    if compared and not (np.isfinite(outcome.margin) or unknown):
        raise PluginError(who, f"{call}: margin is {outcome.margin:g}")
    lowest = outcome.scores[outcome.ranking[0]] <= outcome.scores.min()
    if run.strategy.same_draws and one_image and not lowest:
        raise PluginError(who, f"{call}: the first class has not the lowest score")
    return outcome


def _check_cells(who: str, call: str, run: PreparedRun, decided: Decided) -> None:
    """Raise PluginError unless all errors are those of requests, and there if they are stored."""
    prompts = len(run.content.prompts.texts) if run.split.items is None else None
    for request, errors in decided.cells:
        sizes = [_count(request.prompts, prompts), _count(request.draws, run.names.n_draws)]
        whole = errors.dtype == np.float32 and np.isfinite(errors).all()
        if errors.shape != tuple(sizes) or not whole:
            raise PluginError(who, f"{call}: its errors are not those of its requests")
    for linearised, errors in decided.linearised:
        draws = _count(linearised.draws, run.names.n_draws)
        if errors.ndim != 2 or errors.shape[1] != draws or len(errors) != len(linearised.mixture):
            raise PluginError(who, f"{call}: its first-order errors are not those of its requests")
    stored = decided.cells or decided.linearised
    if run.config.save_errors and decided.error is None and not stored:
        raise PluginError(who, f"{call}: it has no errors, which are to be saved")


def _count(indices: Any, limit: int | None) -> int:
    """Return the number of indices; -1 if one is none."""
    values = np.asarray(indices)
    whole = values.ndim == 1 and values.dtype.kind in "iu" and values.size > 0
    inside = whole and values.min() >= 0 and (limit is None or values.max() < limit)
    return len(values) if inside else -1


class CheckedRun(OpenRun):
    """Wrapper of a run that the executor `who` has opened, which errors name."""

    def __init__(self, opened: OpenRun, who: str, run: PreparedRun) -> None:
        self._opened, self._who, self._run = opened, who, run
        self.model = checked_facts(who, run, opened.model)
        self.device = checked_answer(who, "device", str | None, lambda: opened.device)

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        waiting, decisions, who = dict.fromkeys(sample_ids), None, self._who
        while waiting:
            with guard(who, "score()", (BenchError,)):
                decisions = decisions or iter(self._opened.score(list(waiting)))
                decided: Any = next(decisions, None)
                name = decided.sample.sample_id if isinstance(decided, Decided) else None
                if not isinstance(name, str) or name not in waiting:
                    left = f"{len(waiting)} images are left, each of which is wanted once"
                    raise PluginError(who, f"score() yielded {one_line(name or decided)}; {left}")
            self.peak_memory = checked_answer(
                who, "peak_memory", Memory, lambda: self._opened.peak_memory
            )
            del waiting[name]
            yield checked_decision(who, self._run, decided)

    @override
    def close(self) -> None:
        with warning_guard(self._who, "close()", NOT_CLOSED):
            self._opened.close()
