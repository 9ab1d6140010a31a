"""A view of a stored run: what it is and what came of it, which all tables and pages lay out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contracts.metric_spec import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import provenance
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_specs, non_default_params
from bench.errors import UserError, warn_user
from bench.reports.facts import Fact, assignments, metric_fact, percent_text, template_text
from bench.reports.text import escape_hidden
from bench.stats.calibration.agreement import Audit, audit_of
from bench.stats.metrics.comparison import OF_BACKBONE, SHARED, run_settings
from bench.stats.metrics.metric_values import MeasuredMetric, make_metric, measure
from bench.stats.metrics.summarise import summarize, summary_so_far, with_lowest_group
from bench.store.columns import (
    column_values,
    labelled_samples,
    metric_input,
    read_columns,
    read_raters,
)
from bench.store.errata import Touch, touched
from bench.store.folder import requested_records
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Manifest
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer, read_questions
from bench.store.runs import OnUnreadable, StoredRun, read_run, read_runs, warn_left_out
from bench.store.summary import Repeated, Summary, read_again, read_swept

if TYPE_CHECKING:
    from bench.recordings.recording import Recording
    from bench.running.execute import Finished

# Settings that rows have as fields, or that another one implies.
IN_FIELDS = (
    *("identity version", "dataset", "version", "split", "data", "decoding", "prompts", "backbone"),
    *("backbone version", "weights", "strategy", "strategy version", "made"),
)
FIRST = ("seed", "loss", "space", "plan", "dtype")  # settings that tables show first

SampleRow = dict[str, Any]
"""One decided image, by column. If it failed, `prediction` is None and `error` is its message."""

SAMPLE_COLUMNS = {
    "sample_id": "string",
    "label": "string",
    "prediction": "string",
    "correct": "bool",
    "score": "double",
    "margin": "double",
    "margin_stderr": "double",
    # The `confidence` of the record. It is None for strategies that choose when to stop: they stop
    # when the margin is large, which biases it.
    "stability": "double",
    "evaluations": "int64",
    "seconds": "double",
    "error": "string",
}
"""Column of `RunView.samples` → its Arrow type."""


@dataclass(frozen=True)
class RunView:
    """What a run is and what came of it; most of it is read or computed when it is first used."""

    stored: StoredRun
    measured: MeasuredMetric | None = None  # requested metric
    label: tuple[str, str] | None = None  # (column, value) by which its images were filtered

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.stored.path

    @property
    def manifest(self) -> Manifest:
        """Settings, identity, classes, prompts and versions."""
        return self.stored.manifest

    @cached_property
    def decided(self) -> Decisions:
        """The decisions, which stay in memory."""
        return self.decisions()

    def decisions(self, top: bool = True) -> Decisions:
        """Return the decisions; those that are not in memory yet are read without keeping them."""
        kept: Decisions | None = self.__dict__.get("decided")
        return self.stored.decided(top) if kept is None else kept

    @cached_property
    def so_far(self) -> Summary | None:
        """The summary of the decided images; None if there are none."""
        if self.stored.complete:
            summary = self.stored.summary
            return summary and with_lowest_group(summary, self.decisions)
        decided = self.decisions()
        if not len(decided):
            return None
        return summary_so_far(self.manifest, self.stored.summary, decided)

    @property
    def summary(self) -> Summary:
        """The summary of the decided images, of which there must be one."""
        assert self.so_far is not None
        return self.so_far

    @property
    def n(self) -> int:
        """Number of decided images."""
        return self.so_far.dataset.n_samples if self.so_far else 0

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
        return ending_answer(self.questions, self.n)

    @cached_property
    def again(self) -> Repeated | None:
        """Decisions that were made again with other noise; None if none were."""
        return read_again(self.path, self.manifest, self.decisions())

    @cached_property
    def audit(self) -> Audit | None:
        """Agreement with the full sweep of images that were swept; None if none were."""
        swept = read_swept(self.path, self.manifest)
        return audit_of(swept, self.manifest, self.decisions()) if swept else None

    @cached_property
    def errata(self) -> list[Touch]:
        """What was wrong in runs such as this one; see `bench.store.errata`."""
        return touched(self.manifest, self.stored.summary)

    def recording(self) -> Recording:
        """Return the recorded errors; UserError if there are none, or not those of all classes."""
        from bench.recordings.recording import open_recording

        return open_recording(self.path)

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
            value, spec = self.measured.value, specs[self.measured.metric]
            note = self.measured.caveat or ""
            rows.append(metric_fact(spec, value, self.measured.ci95, note))
        if (worst := metrics.worst_group) is not None:
            alone = percent_text(worst.accuracy, worst.accuracy_ci95)
            note = f"{worst.group} ({worst.n:,}), the lowest of {worst.groups}; alone {alone}"
            rows.append(Fact("worst group", worst.accuracy, "share", worst.lowest_ci95, note))
        return rows

    @property
    def accuracy(self) -> Fact:
        """The accuracy or the text score, with an interval that is valid however the run ended."""
        return self.scores[0]

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
        return [
            metric_fact(spec, value) for spec, value in shown.values() if spec.name != "accuracy"
        ]

    @property
    def cost(self) -> Fact:
        """Passes of a classifier or evaluation equivalents of another model, per image."""
        unit = "passes" if self.manifest.classifier else "evaluations"
        value = self.summary.cost.per_image(self.manifest.classifier)
        return Fact(f"cost, {unit} per image", value, "cost")

    @property
    def images(self) -> Fact:
        """Number of decided images or items."""
        items, total = self.manifest.items, self.manifest.dataset.n_total
        if items is None:
            return Fact("images", f"{self.n:,} of {total:,}", note=f"{len(self.classes):,} classes")
        images = "one image" if items.images == 1 else f"{items.images} images"
        note = f"{images} and up to {items.texts} texts each, {items.pool:,} texts in all"
        return Fact("items", f"{self.n:,} of {total:,}", note=note)

    @property
    def description(self) -> list[Fact]:
        """Data, model, strategy and settings."""
        manifest, identity = self.manifest, self.manifest.identity
        data, backbone, prompts = manifest.dataset, manifest.backbone, manifest.prompts
        precision = identity.backbone.precision
        more = f" of {len(prompts):,}" if len(prompts) > 1 else ""
        strategy = f"{manifest.strategy.name} {assignments(manifest.strategy.params)}".strip()
        facts = {
            "dataset": f"{data.name}/{data.split}",
            "backbone": f"{backbone.name}, {provenance(backbone.trained_on)}, {precision}",
            "LoRA": backbone.adapters,
            "against float32": manifest.rounding and manifest.rounding.in_words,
            "strategy": strategy,
            "seed": str(identity.seed),
            "template": template_text(self.template),
            "first prompt": f"“{prompts[0][0]}”{more}" if prompts else None,
            "blind control": identity.control,
            "corruption": identity.corrupt,
            "replayed from": manifest.replayed_from,
            "note": manifest.config.labels,
            "started": f"{manifest.created[:16].replace('T', ' ')} UTC",
        }
        return [Fact(name, text) for name, text in facts.items() if text]

    @property
    def warnings(self) -> list[Fact]:
        """What was wrong in runs such as this one, in sentences."""
        return [Fact(touch.mark or "erratum", touch.sentence) for touch in self.errata]

    @property
    def template(self) -> str | None:
        """The user's template, several of them joined; None if the user set none."""
        template = self.manifest.config.template
        return " · ".join(template) if isinstance(template, list) else template

    @cached_property
    def settings(self) -> Parameters:
        """The settings that affect the results, without the strategy's parameters.

        They have the names of their options. Of the prompts, it is the template that the user set
        or else the first text, unless the run learned its classes from images.
        """
        manifest, every = self.manifest, run_settings(self.manifest)
        settings: Parameters = {"template": self.template} if self.template else {}
        if not settings and manifest.prompts and not manifest.identity.learned_from:
            settings = {"prompt": manifest.prompts[0][0]}
        settings |= {name: every.pop(name) for name in FIRST if name in every}
        own = {*IN_FIELDS, *manifest.strategy.params}
        others = {k: v for k, v in every.items() if k not in own and "." not in k}
        if others.get("noise") == SHARED:
            del others["noise"]
        return settings | others | dict([self.label] if self.label else [])

    @property
    def samples(self) -> Iterator[SampleRow]:
        """The rows of the decided images, in the order of the manifest's samples."""
        from bench.running.parts.decision import strategy_of

        manifest, strategy = self.manifest, strategy_of(self.manifest)
        classes, has_errors = manifest.classes, manifest.margin_errors_known
        unbiased = has_errors and strategy is not None and strategy.same_draws
        for record in requested_records(self.path, manifest):
            prediction = record["prediction"]
            row = {
                **record,
                "label": classes[record["label"]],
                "prediction": None if prediction is None else classes[prediction],
                "correct": prediction == record["label"],
                "margin_stderr": record["margin_stderr"] if has_errors else None,
                "stability": record["confidence"] if unbiased else None,
            }
            yield {name: row[name] for name in SAMPLE_COLUMNS}

    def measure(
        self,
        name: str,
        parameters: Mapping[str, Any],
        others: Sequence[Path] = (),
        by: str | None = None,
    ) -> list[tuple[str, MeasuredMetric | str]]:
        """Measure a registered metric, as a whole or by groups of images.

        Each metric has the name of its group, "" if `by` is None. If it is undefined for a group,
        the reason replaces it. `parameters` are those that differ from their defaults; `others` are
        as for `read_raters`; `by` is a column of labels, or `group` for the groups of the data.
        Raises UserError if there is no such metric, parameter or column, or if the run lacks
        something that it needs.
        """
        spec, decided = load_plugins().metrics.get(name), self.stored.require_decisions()
        metric = make_metric(spec, parameters)
        if self.stop is not None:
            warn_user(self.stop.warning(self.manifest.run_id))
        raters = read_raters(self.manifest, decided, others)
        data = metric_input(self.path, self.manifest, decided, spec, metric, raters)
        if by is None:
            return [("", measure(spec, metric, data, parameters))]
        names = data.groups if by == "group" else None
        if names is None:
            columns = read_columns(self.path, self.manifest)
            names = column_values(columns, by, decided.sample_ids.to_pylist())
        rows: list[tuple[str, MeasuredMetric | str]] = []
        for group in sorted(set(names.tolist()) - {""}):  # an image without a name is in no group
            try:
                part = data.take(np.flatnonzero(names == group))
                rows.append((group, measure(spec, metric, part, parameters)))
            except UserError as error:
                rows.append((group, str(error)))
        return rows

    def with_metric(self, name: str, parameters: Mapping[str, Any]) -> RunView:
        """Return a copy with a metric of its images; UserError as for `measure`."""
        [(_, measured)] = self.measure(name, parameters)
        return replace(self, measured=None if isinstance(measured, str) else measured)


def without_defaults(backbone: str, settings: Parameters) -> Parameters:
    """Return settings without the parameters of a backbone that have their default."""
    return {
        name: value
        for name, value in settings.items()
        if name in FIRST
        or non_default_params("backbones", backbone, {name.removeprefix(OF_BACKBONE): value})
    }


def _guessing(chance: float | None) -> str:
    return "" if chance is None else f"guessing: {percent_text(chance)}"


def read_view(path: Path) -> RunView:
    """Return the run in a folder; UserError as for `read_run`."""
    return RunView(read_run(path))


def view_of(finished: Finished) -> RunView:
    """Return a run that was just made, limited to the images asked for."""
    return RunView(StoredRun(finished.folder, finished.manifest, finished.summary))


def read_decided_run(run: StoredRun) -> RunView:
    """Return a run, complete or not, with its decisions; UserError if there are none yet."""
    view = RunView(run)
    if not len(view.decided):
        run.require_decisions()  # raises
    return view


def read_requested_run(
    run: StoredRun,
    metric: tuple[str, Mapping[str, Any]] | None,
    label: tuple[str, str] | None,
    left_out: OnUnreadable,
) -> RunView:
    """Return a run limited to images with a label, and with a metric.

    If it lacks what the metric needs, `left_out` is called with the reason. UserError if none of
    the images is decided.
    """
    if label is None:
        view = read_decided_run(run)
    else:
        samples = labelled_samples(run.path, run.manifest, *label)
        manifest = run.manifest.model_copy(update={"samples": samples})
        decided = StoredRun(run.path, manifest, None).require_decisions()
        summary = summarize(manifest, decided, None, None)
        view = RunView(StoredRun(run.path, manifest, summary), label=label)
    try:
        return view if metric is None else view.with_metric(*metric)
    except UserError as error:
        left_out(run.path, error)
        return view


def read_decided_runs(paths: Iterable[Path]) -> Iterator[RunView]:
    """Yield the runs in some folders; a warning names each that has no decided image."""
    for run in read_runs(paths):
        try:
            yield read_decided_run(run)
        except UserError as error:
            warn_left_out(run.path, error)
