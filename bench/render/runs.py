"""Read stored runs for pages: decisions, summary, scores and blind controls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.boards.rows import LeaderboardRow, run_row
from bench.boards.text import escape_hidden
from bench.discovery.loading import metric_of_runs, metric_specs
from bench.errors import UserError
from bench.stats.measures import MeasuredMetric, make_metric, measure
from bench.stats.metrics import INCOMPLETE, summarize, summary_so_far
from bench.store.columns import labelled_samples
from bench.store.decisions import Decisions
from bench.store.documents import Items, Manifest
from bench.store.metric_inputs import metric_input
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer, read_questions
from bench.store.runs import LeftOut, StoredRun, read_runs, warn_left_out
from bench.store.summary import Metrics, Summary


@dataclass(frozen=True)
class RunData:
    """A run with its decisions, at least one, and their summary."""

    path: Path
    manifest: Manifest
    decided: Decisions
    summary: Summary
    measured: MeasuredMetric | None = None  # requested metric
    label: tuple[str, str] | None = None  # (column, value) by which its images were filtered

    @property
    def classes(self) -> list[str]:
        """Class names in label order, with control characters escaped."""
        return [escape_hidden(name) for name in self.manifest.classes]

    @cached_property
    def questions(self) -> list[AskedQuestion]:
        """Questions that were to end the run."""
        return read_questions(self.path, self.manifest)

    @property
    def stop(self) -> QuestionAnswer | None:
        """Answer that ended the run; None if none did."""
        return ending_answer(self.questions, len(self.decided))

    @property
    def row(self) -> LeaderboardRow:
        """Leaderboard row; its kind is `incomplete` if the run is."""
        row = run_row(self.path, self.manifest, self.summary)
        if self.measured is not None:
            row = row.with_metric(self.measured.metric, self.measured.value)
        if self.label is not None:
            row = row.model_copy(update={"parameters": {**row.parameters, **dict([self.label])}})
        incomplete = self.summary.status == INCOMPLETE
        return row.model_copy(update={"kind": INCOMPLETE}) if incomplete else row


def read_decided_run(run: StoredRun) -> RunData:
    """Return a run, complete or not, with its decisions; UserError if there are none yet."""
    decided = run.require_decisions()
    summary = summary_so_far(run.manifest, run.summary, decided)
    return RunData(run.path, run.manifest, decided, summary)


def restrict_to_label(run: StoredRun, column: str, value: str) -> RunData:
    """Return a run limited to images with this label; UserError if none of them is decided."""
    samples = labelled_samples(run.path, run.manifest, column, value)
    manifest = run.manifest.model_copy(update={"samples": samples})
    decided = StoredRun(run.path, manifest, None).require_decisions()
    summary = summarize(manifest, decided, None, None)
    return RunData(run.path, manifest, decided, summary, label=(column, value))


def measure_metric(run: RunData, name: str, parameters: Mapping[str, Any]) -> RunData:
    """Return a run with a metric of its images; UserError if it lacks what the metric needs."""
    spec = metric_of_runs(name)
    metric = make_metric(spec, parameters)
    data = metric_input(run.path, run.manifest, run.decided, spec, metric)
    return replace(run, measured=measure(spec, metric, data, parameters))


def read_requested_run(
    run: StoredRun,
    metric: tuple[str, Mapping[str, Any]] | None,
    label: tuple[str, str] | None,
    left_out: LeftOut,
) -> RunData:
    """Return a run limited to a label, and with a metric.

    If it lacks what the metric needs, `left_out` is called with the reason.
    """
    data = restrict_to_label(run, *label) if label else read_decided_run(run)
    try:
        return data if metric is None else measure_metric(data, *metric)
    except UserError as error:
        left_out(run.path, error)
        return data


def read_decided_runs(paths: Iterable[Path]) -> Iterator[RunData]:
    """Yield the runs in some folders; a warning names each that has no decided image."""
    for run in read_runs(paths):
        try:
            yield read_decided_run(run)
        except UserError as error:
            warn_left_out(run.path, error)


@dataclass(frozen=True)
class Score:
    """A share of right decisions, with its 95 % interval and the share that guessing gives."""

    name: str
    share: float
    ends: tuple[float, float]
    guessing: float | None = None
    note: str = ""


def list_scores(
    metrics: Metrics,
    n_classes: int,
    items: Items | None,
    stop: QuestionAnswer | None = None,
    measured: MeasuredMetric | None = None,
) -> list[Score]:
    """Return a run's scores, the accuracy or the text score first.

    `stop` is the answer that ended the run, and `measured` a requested metric.
    """
    guessing = 1 / n_classes if items is None else items.chance
    name = "accuracy" if metrics.text_score is None else "text score"
    ends, note = metrics.accuracy_ci95, ""
    if stop is not None:
        note = f"valid at any number of images; of a fixed one: {ends[0]:.4f} – {ends[1]:.4f}"
        ends = stop.interval
    rows = [Score(name, metrics.accuracy, ends, guessing, note)]
    for kind in ("image", "group"):
        share, ends, expected = (
            getattr(metrics, f"{kind}_{what}") for what in ("score", "score_ci95", "chance")
        )
        if share is not None:
            rows.append(Score(f"{kind} score", share, ends, expected))
    if measured is not None and metric_specs()[measured.metric].unit == "share":
        rows.append(Score(measured.words, measured.value, measured.ci95))
    if (worst := metrics.worst_group) is not None:
        note = f"{worst.group} ({worst.n:,})"
        rows.append(Score("worst group", worst.accuracy, worst.accuracy_ci95, None, note))
    return rows


@dataclass(frozen=True)
class Blind:
    """A run and its blind control; `control` says how the images were destroyed."""

    seen: RunData
    control: str
    blind: RunData


def find_blind_controls(runs: Iterable[RunData]) -> list[Blind]:
    """Return the pairs of a run and its blind control among these runs."""
    identities = [(run, run.manifest.identity.plain()) for run in runs]
    return [
        Blind(seen, identity["control"], blind)
        for blind, identity in identities
        if identity.get("control") is not None
        for seen, other in identities
        if other == {name: value for name, value in identity.items() if name != "control"}
    ]
