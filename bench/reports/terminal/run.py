"""Print one run: its description, metrics, cost and statistics."""

from collections.abc import Collection, Sequence

import numpy as np

from bench.discovery.queries import metric_specs
from bench.errors import images_failed
from bench.reports.classes import class_table
from bench.reports.facts import Fact, assignments, metric_fact, percent_text
from bench.reports.run_facts import (
    averages,
    description,
    images_fact,
    scores,
    settings_of,
    without_defaults,
    wrongs,
)
from bench.reports.run_view import RunView
from bench.reports.sentences import make_opening, probability_sentence, risk_sentence, risk_warning
from bench.reports.terminal.tables import console, print_rows, print_table
from bench.running.command import removed_from
from bench.stats.calibration.probability import Probability
from bench.stats.metrics.metric_values import MeasuredMetric
from bench.stats.metrics.summarise import Statistics, confusions_of, worst_confusions
from bench.store.folder import read_manifest, read_records
from bench.store.summary import Ends, Summary

IN_OPENING = ("dataset", "backbone", "blind control", "corruption")  # facts of the first sentences
SHOWN_APART = ("template", "prompt", "seed", "dtype")  # settings that have facts of their own


def print_run(run: RunView, resumed: bool = False, brief: bool = False) -> None:
    """Print a run: its description, metrics with intervals, worst confusions, cost and folder.

    In `brief`, what the first sentences say is not said again, and metrics are a line of text.
    The metrics of an incomplete run are of its decided images, and labelled so. The view may be of
    some images of the stored run. With `resumed`, nothing was left to score.
    """
    terminal, manifest, summary = console(), run.manifest, run.so_far
    if resumed:
        terminal.print("This run is complete; --fresh would start it over.", style="dim")
    if summary is not None:
        for sentence in filter(None, make_opening(run)):
            terminal.print(sentence)
        terminal.print()
    if not brief:
        terminal.print(manifest.run_id, style="bold")
    terminal.print(_description(run, IN_OPENING if brief else ()))
    for fact in wrongs(run):
        terminal.print(f"{fact.name[0].upper()}{fact.name[1:]}: {fact.text}", style="yellow")
    _print_missing(run)
    if summary is None:
        return
    accuracy, *others = scores(run)
    facts = [accuracy, *averages(run), *others]
    if brief:
        terminal.print(" · ".join(map(_in_line, facts[1:])))
    else:
        print_rows(["metric", "value"], [[fact.label, fact.line] for fact in facts])
        terminal.print()
    if confusions := worst_confusions(confusions_of(run.decided), manifest.classes):
        print_rows(["true", "predicted", "images"], confusions, title="Worst confusions")
    _print_cost(run)
    _print_notes(run, summary)
    terminal.print(f"Results: {run.path}", soft_wrap=True)
    for picture in sorted(run.path.glob("*.png")):
        terminal.print(f"Picture: {picture}", soft_wrap=True)


def _print_missing(run: RunView) -> None:
    """Print which of the run's images are not shown, or not decided."""
    terminal, manifest = console(), run.manifest
    stored = len(read_manifest(run.path).samples)
    if len(manifest.samples) < stored:
        terminal.print(
            f"These are the {len(manifest.samples):,} images asked for; the stored run is about"
            f" {stored:,}.",
            style="dim",
        )
    if run.n < len(manifest.samples):
        terminal.print(
            f"Partial: {run.n:,} of {len(manifest.samples):,} images are decided"
            f"{'.' if removed_from(manifest) else '; the same `bench run` resumes it.'}",
            style="yellow",
        )


def _print_notes(run: RunView, summary: Summary) -> None:
    """Print a stated risk, warnings, what a ceiling ended, what was fitted, and what failed."""
    terminal, manifest = console(), run.manifest
    if (stated := manifest.identity.calibrated) is not None:
        terminal.print(risk_sentence(stated, manifest.sweep, summary))
        if warning := risk_warning(run.audit, stated):
            terminal.print(warning, style="yellow")
    for warning in summary.warnings or ():
        terminal.print(f"Warning: {warning}", style="yellow")
    if summary.decided_by is not None and summary.decided_by.ceiling:
        _print_ends(summary.decided_by)
    if summary.fitted:
        plain = {k: v for k, v in summary.fitted.plain().items() if not isinstance(v, dict | list)}
        terminal.print(f"Fitted: {assignments(plain)}", soft_wrap=True)
    if summary.failed_samples:
        sample_id = run.decided.sample_ids[int(np.flatnonzero(run.decided.failed)[0])].as_py()
        terminal.print(
            f"{images_failed(summary.failed_samples)}, counted as wrong, such as"
            f" {sample_id}: {read_records(run.path)[sample_id]['error']}",
            style="yellow",
        )


def _in_line(fact: Fact) -> str:
    name, percent, _ = fact.label.partition(", %")
    return f"{name} {fact.line}{' %' if percent else ''}"


def _description(run: RunView, said: Collection[str] = ()) -> str:
    settings = without_defaults(run.manifest.backbone.name, settings_of(run))
    settings = {name: value for name, value in settings.items() if name not in SHOWN_APART}
    said = (*said, "started")
    facts = [f"{fact.name}: {fact.text}" for fact in description(run) if fact.name not in said]
    if not ("dataset" in said and run.n == run.manifest.dataset.n_total):
        counted = images_fact(run)
        facts.insert(0, f"{counted.text} {counted.name}, {counted.note}")
    return " · ".join(filter(None, [*facts, assignments(settings)]))


def print_statistics(
    statistics: Statistics, ends: Ends | None = None, noise: str | None = None
) -> None:
    """Print statistics of classes, groups and probabilities, why scoring ended, and about noise."""
    print_table(class_table(statistics.per_class))
    if statistics.per_group:
        rows = [
            [g.group, g.n, percent_text(g.accuracy, g.accuracy_ci95)] for g in statistics.per_group
        ]
        print_rows(["group", "n", "accuracy, %"], rows, "Groups (each interval is for one group)")
    _print_probability(statistics.probability)
    if ends is not None:
        _print_ends(ends)
    if noise:
        console().print(noise)


def _print_probability(skill: Probability | None) -> None:
    if skill is None:
        console().print(
            "Probability that a decision is right: not known. `bench learn RUN calibration` on"
            " other images, such as a validation split, makes it known.",
            style="dim",
        )
        return
    rows = [
        [b.n, percent_text(b.probability), percent_text(b.accuracy, b.accuracy_ci95)]
        for b in skill.bins
    ]
    print_rows(
        ["n", "probability, %", "accuracy, %"],
        rows,
        title="Probability that a decision is right, against how often it was",
        right={"probability, %"},
    )
    console().print(probability_sentence(skill))
    halves = [c for c in skill.coverage if c.coverage >= 0.5]
    console().print(
        f"Of the most probable half of the decisions {percent_text(halves[0].accuracy)} % are"
        f" right, of all {percent_text(skill.accuracy)} %; the mean over all coverages is"
        f" {percent_text(skill.coverage_area)} %."
    )


def _print_ends(ends: Ends) -> None:
    console().print(
        f"Decided by the bound: {ends.bound:,} images; by using all draws: {ends.exhausted:,}; by"
        + (f" the sweep: {ends.sweep:,}; by" if ends.sweep else "")
        + f" the ceiling: {ends.ceiling:,}"
        + (" (nothing is promised about these)" if ends.ceiling else "")
        + (f"; as a tie: {ends.tie:,}" if ends.tie else "")
    )


def _print_cost(run: RunView) -> None:
    cost, classifier = run.summary.cost, run.manifest.classifier
    text = f"Cost: {cost.evaluations_per_image:,.1f} evaluations per image"
    if classifier or cost.linearisations:
        text = f"Cost: {cost.in_words(classifier)}"
    if cost.linearisations:
        text += (
            f" ({cost.evaluations:,} evaluations, {cost.linearisations:,} linearisations"
            f"{' at a price that was timed' if cost.timed else ''})"
        )
    if cost.seconds is not None and cost.images_per_second:
        text += f", {cost.seconds:,.1f} s scoring ({cost.images_per_second:.2f} images/s)"
    if cost.total_seconds is not None:
        text += f", {cost.total_seconds:,.1f} s in all"
    for what, second in (("decided again", run.again), ("swept for the audit", run.audit)):
        if second is not None:
            text += (
                f"; {second.images:,} images {what}: {second.evaluation_equivalents:,.0f} more"
                f" evaluation equivalents, {second.seconds:,.1f} s"
            )
    console().print(text)


INTERVALS = {
    "images": "the images' values",
    "influence": "influence values of the images",
    "bootstrap": "a bootstrap over images",
}


def print_measured(rows: Sequence[tuple[str, MeasuredMetric | str]], by: str | None) -> None:
    """Print a metric with its interval, for the run or for each value of the column `by`."""
    if by is None:
        [(_, row)] = rows
        assert not isinstance(row, str)
        fact, over = _measured(row), INTERVALS[row.interval] + (" and raters" if row.raters else "")
        caveats = [row.caveat] if row.caveat else []
        lines = [
            [fact.label, fact.text],
            ["images", fact.note],
            ["95 % interval from", "; ".join([over] * (row.ci95 is not None) + caveats)],
            *([name, f"{value:.4g}"] for name, value in (row.raters or {}).items()),
        ]
        if row.never_predicted:
            lines.append(["classes never predicted", f"{row.never_predicted}, of precision 0"])
        print_rows(["", ""], lines)
        return
    label, lines = "value", []
    for name, row in rows:
        if isinstance(row, str):
            lines.append([name, row, ""])
            continue
        fact = _measured(row)
        lines.append([name, fact.text, fact.note + (f" ({row.caveat})" if row.caveat else "")])
        label = fact.label
    print_rows([by, label, "images"], lines, right={"images"})


def _measured(row: MeasuredMetric) -> Fact:
    return metric_fact(metric_specs()[row.metric], row.value, row.ci95, f"{row.images:,}")
