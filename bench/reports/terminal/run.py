"""Print one run: its description, metrics, cost and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.discovery.loading import metric_specs, non_default_params
from bench.errors import images_failed
from bench.reports.facts import Fact, metric_fact
from bench.reports.formats import assignments, percent_text
from bench.reports.leaderboard.rows import other_settings
from bench.reports.risk import risk_sentence, risk_warning
from bench.reports.run_view import RunView, describe
from bench.reports.sentences import make_opening, probability_sentence
from bench.reports.terminal.tables import console, print_explained, print_rows
from bench.running.command import removed_from
from bench.stats.agreement import Audit, audit_of
from bench.stats.measures import MeasuredMetric
from bench.stats.metrics import Statistics, confusion, summary_so_far, worst_confusions
from bench.stats.probability import Probability
from bench.store.documents import Manifest
from bench.store.folder import read_records
from bench.store.runs import read_run
from bench.store.summary import Again, Cost, Ends, Summary, read_again, read_swept


def print_run(
    path: str | Path,
    manifest: Manifest | None = None,
    summary: Summary | None = None,
    resumed: bool = False,
) -> None:
    """Print a run: its description, metrics with intervals, worst confusions, cost and folder.

    The metrics of an incomplete run are of its decided images, and labelled so. `manifest` and
    `summary` are of the images to show, if these are not all images of the stored run. With
    `resumed`, nothing was left to score.
    """
    path = Path(path)
    terminal = console()
    stored = read_run(path)
    whole = stored.manifest
    if manifest is None or summary is None:
        manifest, summary = whole, stored.summary
    stored = replace(stored, manifest=manifest, summary=summary)
    decided = stored.decided(top=True)
    if resumed:
        terminal.print("This run is complete; --fresh would start it over.", style="dim")
    complete = summary is not None and summary.dataset.n_samples == len(manifest.samples)
    again = read_again(path, manifest, decided)
    audit, run = audit_of(read_swept(path, manifest), manifest, decided), None
    if len(decided):
        summary = summary_so_far(manifest, summary, decided)
        run = RunView(path, manifest, decided, summary)
        for sentence in astuple(
            make_opening(manifest, summary, decided, again, audit, run.questions)
        ):
            terminal.print(sentence)
        terminal.print()
    terminal.print(manifest.run_id, style="bold")
    terminal.print(_description(manifest, len(decided)))
    if len(manifest.samples) < len(whole.samples):
        terminal.print(
            f"These are the {len(manifest.samples):,} images asked for; the stored run is about"
            f" {len(whole.samples):,}.",
            style="dim",
        )
    if not complete:
        terminal.print(
            f"Partial: {len(decided):,} of {len(manifest.samples):,} images are decided"
            f"{'.' if removed_from(manifest) else '; the same `bench run` resumes it.'}",
            style="yellow",
        )
    if summary is None or run is None:
        return
    facts = [*run.scores[:1], *run.averages, *run.scores[1:]]
    print_rows(["metric", "value"], [[fact.label, fact.line] for fact in facts])
    terminal.print()
    confusions = worst_confusions(confusion(decided, len(manifest.classes)), manifest.classes)
    if confusions:
        print_rows(["true", "predicted", "images"], confusions, title="Worst confusions")
    _print_cost(summary.cost, manifest.classifier, again, audit)
    if (stated := manifest.identity.calibrated) is not None:
        terminal.print(risk_sentence(stated, manifest.sweep, summary))
        if warning := risk_warning(audit, stated):
            terminal.print(warning, style="yellow")
    for warning in summary.warnings or ():
        terminal.print(f"Warning: {warning}", style="yellow")
    if summary.decided_by is not None:
        _print_ends(summary.decided_by)
    if summary.fitted:
        plain = {k: v for k, v in summary.fitted.plain().items() if not isinstance(v, dict | list)}
        terminal.print(f"Fitted: {assignments(plain)}", soft_wrap=True)
    if summary.failed_samples:
        sample_id = decided.sample_ids[int(np.flatnonzero(decided.failed)[0])].as_py()
        terminal.print(
            f"{images_failed(summary.failed_samples)}, counted as wrong, such as"
            f" {sample_id}: {read_records(path)[sample_id]['error']}",
            style="yellow",
        )
    terminal.print(f"Results: {path}", soft_wrap=True)
    for picture in sorted(path.glob("*.png")):
        terminal.print(f"Picture: {picture}", soft_wrap=True)


def _description(manifest: Manifest, decided: int) -> str:
    backbone, scoring = manifest.backbone, manifest.identity.scoring
    settings = {"loss": scoring.loss, "space": scoring.space, "plan": scoring.draw_plan}
    settings |= non_default_params("backbones", backbone.name, other_settings(manifest))
    facts = [f"{fact.name}: {fact.text}" for fact in describe(manifest) if fact.name != "started"]
    images = f"{decided:,} of {manifest.dataset.n_total:,} {_content(manifest)}"
    return " · ".join(filter(None, [images, *facts, assignments(settings)]))


def _content(manifest: Manifest) -> str:
    if (items := manifest.items) is None:
        return f"images, {len(manifest.classes):,} classes"
    images = "one image" if items.images == 1 else f"{items.images} images"
    return f"items, {images} and up to {items.texts} texts each, {items.pool:,} texts in all"


def print_statistics(statistics: Statistics, noise: str | None = None) -> None:
    """Print the statistics of classes, groups and probabilities, and a sentence about noise."""
    head = ["class", "n", "predicted", "precision, %", "recall, %", "F1, %"]
    rows: list[list[Any]] = [
        [
            *(row.name, row.n, row.predicted, percent_text(row.precision)),
            None if row.recall is None else percent_text(row.recall, row.recall_ci95),
            percent_text(row.f1),
        ]
        for row in statistics.per_class
    ]
    print_rows(head, rows, "Classes", {*head[3:4], *head[5:]}, ["predicted", "F1, %"])
    if statistics.per_group:
        rows = [
            [g.group, g.n, percent_text(g.accuracy, g.accuracy_ci95)] for g in statistics.per_group
        ]
        print_rows(["group", "n", "accuracy, %"], rows, "Groups")
    _print_probability(statistics.probability)
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
    text = (
        f"Decided by the bound: {ends.bound:,} images; by using all draws: {ends.exhausted:,}; by"
        + (f" the sweep: {ends.sweep:,}; by" if ends.sweep else "")
        + f" the ceiling: {ends.ceiling:,}"
        + (f"; as a tie: {ends.tie:,}" if ends.tie else "")
        + (", of which nothing is promised" if ends.ceiling else "")
    )
    console().print(text)
    print_explained(text)


def _print_cost(cost: Cost, classifier: bool, again: Again | None, audit: Audit | None) -> None:
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
    for what, second in (("decided again", again), ("swept for the audit", audit)):
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
    facts = {name: row if isinstance(row, str) else _measured(row) for name, row in rows}
    if by is not None:
        measured = next((fact for fact in facts.values() if isinstance(fact, Fact)), None)
        lines = [
            [name, fact, ""] if isinstance(fact, str) else [name, fact.text, fact.note]
            for name, fact in facts.items()
        ]
        head = [by, measured.label if measured else "value", "images"]
        print_rows(head, lines, right={"images"})
        return
    for _, row in rows:
        if isinstance(row, str):
            continue
        fact = _measured(row)
        over = INTERVALS[row.interval] + (" and raters" if row.raters else "")
        lines = [
            [fact.label, fact.text],
            ["images", fact.note],
            ["95 % interval from", over],
            *([name, f"{value:.4g}"] for name, value in (row.raters or {}).items()),
        ]
        print_rows(["", ""], lines)


def _measured(row: MeasuredMetric) -> Fact:
    return metric_fact(metric_specs()[row.metric], row.value, row.ci95, f"{row.images:,}")
