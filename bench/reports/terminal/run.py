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
    errata,
    images_fact,
    scores,
    settings_of,
    without_defaults,
)
from bench.reports.run_view import RunView
from bench.reports.sentences import (
    generation_sentence,
    make_opening,
    probability_sentence,
    risk_sentence,
    risk_warning,
)
from bench.reports.terminal.tables import console, print_rows, print_table
from bench.running.command import removed_from
from bench.stats.calibration.probability import Probability
from bench.stats.metrics.metric_values import MeasuredMetric
from bench.stats.metrics.summarise import Statistics, confusions_of, worst_confusions
from bench.store.folder import read_manifest, read_records
from bench.store.summary import Ends, Summary

# Names of facts that the first sentences state, and of settings that are facts of the description.
IN_OPENING = ("dataset", "backbone", "blind control", "corruption")
SETTINGS_AMONG_FACTS = ("template", "prompt", "seed", "dtype")


def print_run(run: RunView, resumed: bool = False, brief: bool = False) -> None:
    """Print a run: its description, metrics with intervals, worst confusions, cost and folder.

    If `brief`, the description does not repeat the first sentences, and the metrics are a line of
    text. `resumed` is whether the run was complete already. The metrics of an incomplete run are
    those of its decided images, and labelled so. `run` may cover some images of the stored run.
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
    terminal.print(_description_line(run, IN_OPENING if brief else ()))
    for fact in errata(run):
        terminal.print(f"{fact.name[0].upper()}{fact.name[1:]}: {fact.text}", style="yellow")
    _print_missing(run)
    if summary is None:
        return
    accuracy, *others = scores(run)
    others = [*averages(run), *others]
    if brief:
        terminal.print(" · ".join(map(_name_and_value, others)))
    else:
        rows = [[fact.label, fact.line] for fact in (accuracy, *others)]
        print_rows(["metric", "value"], rows)
        terminal.print()
    confusions = None if manifest.items else confusions_of(run.decided)
    if confusions and (worst := worst_confusions(confusions, manifest.classes)):
        print_rows(["true", "predicted", "images"], worst, title="Worst confusions")
    _print_cost(run)
    _print_notes(run, summary)
    terminal.print(f"Results: {run.path}", soft_wrap=True)
    for picture in sorted(run.path.glob("*.png")):
        terminal.print(f"Picture: {picture}", soft_wrap=True)


def _print_missing(run: RunView) -> None:
    """Print how many of the stored run's images `run` does not cover, or has not decided."""
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


def _name_and_value(fact: Fact) -> str:
    """Return a fact as text with the unit after its value, such as `accuracy 86.2 %`."""
    name, percent, _ = fact.label.partition(", %")
    return f"{name} {fact.line}{' %' if percent else ''}"


def _description_line(run: RunView, left_out: Collection[str]) -> str:
    """Return the facts and settings of a run in one line, without the facts named in `left_out`.

    The number of images is included unless the dataset is left out, of which the run has every one.
    """
    settings = without_defaults(run.manifest.backbone.name, settings_of(run))
    settings = {k: value for k, value in settings.items() if k not in SETTINGS_AMONG_FACTS}
    left_out = (*left_out, "started")
    facts = [f"{fact.name}: {fact.text}" for fact in description(run) if fact.name not in left_out]
    if "dataset" not in left_out or run.n != run.manifest.dataset.n_total:
        images = images_fact(run)
        facts.insert(0, f"{images.text} {images.name}, {images.note}")
    return " · ".join(filter(None, [*facts, assignments(settings)]))


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
    for purpose, extra in (("decided again", run.again), ("swept for the audit", run.audit)):
        if extra is not None:
            text += (
                f"; {extra.images:,} images {purpose}: {extra.evaluation_equivalents:,.0f} more"
                f" evaluation equivalents, {extra.seconds:,.1f} s"
            )
    console().print(text)


def _print_notes(run: RunView, summary: Summary) -> None:
    """Print the stated risk, warnings, how images were decided, the fit, and an image that failed.

    How images were decided is printed if the strategy's ceiling ended some of them.
    """
    terminal, manifest = console(), run.manifest
    if (risk := manifest.identity.calibrated) is not None:
        terminal.print(risk_sentence(risk, manifest.sweep, summary))
        if warning := risk_warning(run.audit, risk):
            terminal.print(warning, style="yellow")
    for warning in summary.warnings or ():
        terminal.print(f"Warning: {warning}", style="yellow")
    if summary.decided_by is not None and summary.decided_by.ceiling:
        _print_ends(summary.decided_by)
    if summary.fitted:
        plain = {k: v for k, v in summary.fitted.plain().items() if not isinstance(v, dict | list)}
        terminal.print(f"Fitted: {assignments(plain)}", soft_wrap=True)
    if (generation := summary.generation) is not None:
        terminal.print(generation_sentence(generation, summary.dataset.n_samples))
    if summary.failed_samples:
        first_failed = int(np.flatnonzero(run.decided.failed)[0])
        sample_id = run.decided.sample_ids[first_failed].as_py()
        terminal.print(
            f"{images_failed(summary.failed_samples)}, counted as wrong, such as"
            f" {sample_id}: {read_records(run.path)[sample_id]['error']}",
            style="yellow",
        )


def _print_ends(ends: Ends) -> None:
    """Print by what images were decided: the strategy's bound, all draws, its ceiling, a tie."""
    console().print(
        f"Decided by the bound: {ends.bound:,} images; by using all draws: {ends.exhausted:,}; by"
        + (f" the sweep: {ends.sweep:,}; by" if ends.sweep else "")
        + f" the ceiling: {ends.ceiling:,}"
        + (" (nothing is promised about these)" if ends.ceiling else "")
        + (f"; as a tie: {ends.tie:,}" if ends.tie else "")
    )


def print_statistics(
    statistics: Statistics, ends: Ends | None = None, noise: str | None = None
) -> None:
    """Print statistics of classes, groups and probabilities, then `ends` and a text about noise."""
    if statistics.per_class:
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
    half = next(c for c in skill.coverage if c.coverage >= 0.5)
    console().print(
        f"Of the most probable half of the decisions {percent_text(half.accuracy)} % are"
        f" right, of all {percent_text(skill.accuracy)} %; the mean over all coverages is"
        f" {percent_text(skill.coverage_area)} %."
    )


# From what the interval of a metric is computed.
INTERVALS = {
    "images": "the images' values",
    "influence": "influence values of the images",
    "bootstrap": "a bootstrap over images",
}


def print_measured(rows: Sequence[tuple[str, MeasuredMetric | str]], by: str | None) -> None:
    """Print a metric with its interval, for the run or for each value of the column `by`.

    Each row is (value of the column, metric, or why the metric has no value there); without `by`,
    the only row is the run's.
    """
    if by is None:
        [(_, measured)] = rows
        assert not isinstance(measured, str)
        _print_metric(measured)
        return
    label, lines = "value", []
    for name, measured in rows:
        if isinstance(measured, str):
            lines.append([name, measured, ""])
            continue
        fact = _measured_fact(measured)
        caveat = f" ({measured.caveat})" if measured.caveat else ""
        lines.append([name, fact.text, fact.note + caveat])
        label = fact.label
    print_rows([by, label, "images"], lines, right={"images"})


def _print_metric(measured: MeasuredMetric) -> None:
    """Print one metric with all that is known of it."""
    fact, interval = _measured_fact(measured), []
    if measured.ci95 is not None:
        interval.append(INTERVALS[measured.interval] + (" and raters" if measured.raters else ""))
    if measured.caveat:
        interval.append(measured.caveat)
    rows = [
        [fact.label, fact.text],
        ["images", fact.note],
        ["95 % interval from", "; ".join(interval)],
        *([name, f"{value:.4g}"] for name, value in (measured.raters or {}).items()),
    ]
    if measured.never_predicted:
        rows.append(["classes never predicted", f"{measured.never_predicted}, of precision 0"])
    print_rows(["", ""], rows)


def _measured_fact(measured: MeasuredMetric) -> Fact:
    """Return a metric as a fact, whose note is the number of images."""
    spec = metric_specs()[measured.metric]
    return metric_fact(spec, measured.value, measured.ci95, f"{measured.images:,}")
