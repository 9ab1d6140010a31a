"""A view of a stored run with its decisions, which terminals, pages and notebooks lay out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.contracts.metrics import MetricSpec
from bench.contracts.specs import provenance
from bench.discovery.loading import metric_of_runs, metric_specs
from bench.errors import UserError
from bench.reports.facts import Fact, metric_fact
from bench.reports.formats import assignments, percent_text, template_text
from bench.reports.leaderboard.rows import LeaderboardRow, run_row, user_template
from bench.reports.text import escape_hidden
from bench.stats.measures import MeasuredMetric, make_metric, measure
from bench.stats.metrics import INCOMPLETE, summarize, summary_so_far
from bench.store.columns import labelled_samples
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.metric_inputs import metric_input
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer, read_questions
from bench.store.runs import LeftOut, StoredRun, read_runs, warn_left_out
from bench.store.summary import Summary


@dataclass(frozen=True)
class RunView:
    """What a run is and what came of it: its decisions, at least one, and their summary."""

    path: Path
    manifest: Manifest
    decided: Decisions
    summary: Summary
    measured: MeasuredMetric | None = None  # requested metric
    label: tuple[str, str] | None = None  # (column, value) by which its images were filtered

    @cached_property
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

    @cached_property
    def row(self) -> LeaderboardRow:
        """Leaderboard row; its kind is `incomplete` if the run is."""
        row = run_row(self.path, self.manifest, self.summary)
        if self.measured is not None:
            row = row.with_metric(self.measured.metric, self.measured.value)
        if self.label is not None:
            row = row.model_copy(update={"parameters": {**row.parameters, **dict([self.label])}})
        incomplete = self.summary.status == INCOMPLETE
        return row.model_copy(update={"kind": INCOMPLETE}) if incomplete else row

    @cached_property
    def scores(self) -> list[Fact]:
        """Shares of right decisions, the accuracy or the text score first."""
        metrics, items, specs = self.summary.metrics, self.manifest.items, metric_specs()
        chance = 1 / len(self.manifest.classes) if items is None else items.chance
        name = "accuracy" if metrics.text_score is None else "text score"
        ends, notes = metrics.accuracy_ci95, [_guessing(chance)]
        if self.stop is not None:
            fixed = percent_text(metrics.accuracy, ends)
            notes.append(f"valid at any number of images; of a fixed one: {fixed}")
            ends = self.stop.interval
        rows = [Fact(name, metrics.accuracy, "share", ends, "; ".join(filter(None, notes)))]
        for kind in ("image", "group"):
            share, ends, chance = (
                getattr(metrics, f"{kind}_{what}") for what in ("score", "score_ci95", "chance")
            )
            if share is not None:
                rows.append(Fact(f"{kind} score", share, "share", ends, _guessing(chance)))
        if self.measured is not None:
            value, ends = self.measured.value, self.measured.ci95
            rows.append(metric_fact(specs[self.measured.metric], value, ends))
        if (worst := metrics.worst_group) is not None:
            note = f"{worst.group} ({worst.n:,})"
            rows.append(Fact("worst group", worst.accuracy, "share", worst.accuracy_ci95, note))
        return rows

    @property
    def averages(self) -> list[Fact]:
        """The other metrics of a run of images; there are none of items.

        An average of classes that repeats an earlier metric is left out, and so is what is nearly
        certain: the true class among the five best of fewer than ten.
        """
        values = self.summary.metrics.summary_metrics() if self.manifest.items is None else {}
        shown: dict[object, tuple[MetricSpec, float]] = {}
        for name, value in values.items():
            spec = metric_specs()[name]
            if value is not None and ("top5" not in spec.needs or len(self.classes) >= 10):
                figure = (spec.ratio, spec.by_support) if spec.ratio else name
                shown.setdefault(figure, (spec, value))
        return [metric_fact(spec, value) for spec, value in shown.values() if spec.name != "accuracy"]

    @property
    def cost(self) -> Fact:
        """Passes of a classifier or evaluation equivalents of another model, per image."""
        unit = "passes" if self.manifest.classifier else "evaluations"
        value = self.summary.cost.per_image(self.manifest.classifier)
        return Fact(f"cost, {unit} per image", value, "cost")

    @property
    def images(self) -> Fact:
        """Number of decided images or items."""
        items, total = self.manifest.items, self.summary.dataset.n_total
        what = f"{len(self.classes):,} classes" if items is None else "with texts of their own"
        name = "images" if items is None else "items"
        return Fact(name, f"{len(self.decided):,} of {total:,}", note=what)

    @property
    def description(self) -> list[Fact]:
        """Data, model, strategy and settings."""
        return describe(self.manifest)


def describe(manifest: Manifest) -> list[Fact]:
    """Return the data, model, strategy and settings of a run."""
    identity, config, prompts = manifest.identity, manifest.config, manifest.prompts
    data, backbone, strategy = manifest.dataset, manifest.backbone, manifest.strategy
    more = f" of {len(prompts):,}" if len(prompts) > 1 else ""
    facts = {
        "dataset": f"{data.name}/{data.split}",
        "backbone": f"{backbone.name}, {provenance(backbone.trained_on)}, {backbone.dtype}",
        "strategy": f"{strategy.name} {assignments(strategy.params)}".strip(),
        "seed": str(identity.seed),
        "template": template_text(user_template(manifest)),
        "first prompt": f"“{prompts[0][0]}”{more}" if prompts else None,
        "blind control": identity.control,
        "corruption": identity.corrupt,
        "replayed from": manifest.replayed_from,
        "note": config.labels,
        "started": f"{manifest.created[:16].replace('T', ' ')} UTC",
    }
    return [Fact(name, text) for name, text in facts.items() if text]


def _guessing(chance: float | None) -> str:
    return "" if chance is None else f"guessing: {percent_text(chance)}"


def read_decided_run(run: StoredRun) -> RunView:
    """Return a run, complete or not, with its decisions; UserError if there are none yet."""
    decided = run.require_decisions()
    summary = summary_so_far(run.manifest, run.summary, decided)
    return RunView(run.path, run.manifest, decided, summary)


def restrict_to_label(run: StoredRun, column: str, value: str) -> RunView:
    """Return a run limited to images with this label; UserError if none of them is decided."""
    samples = labelled_samples(run.path, run.manifest, column, value)
    manifest = run.manifest.model_copy(update={"samples": samples})
    decided = StoredRun(run.path, manifest, None).require_decisions()
    summary = summarize(manifest, decided, None, None)
    return RunView(run.path, manifest, decided, summary, label=(column, value))


def measure_metric(run: RunView, name: str, parameters: Mapping[str, Any]) -> RunView:
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
) -> RunView:
    """Return a run limited to a label, and with a metric.

    If it lacks what the metric needs, `left_out` is called with the reason.
    """
    data = restrict_to_label(run, *label) if label else read_decided_run(run)
    try:
        return data if metric is None else measure_metric(data, *metric)
    except UserError as error:
        left_out(run.path, error)
        return data


def read_decided_runs(paths: Iterable[Path]) -> Iterator[RunView]:
    """Yield the runs in some folders; a warning names each that has no decided image."""
    for run in read_runs(paths):
        try:
            yield read_decided_run(run)
        except UserError as error:
            warn_left_out(run.path, error)
