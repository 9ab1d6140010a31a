"""Print one run: its description, metrics, cost and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from bench.boards.formats import assignments
from bench.boards.rows import other_settings, user_template
from bench.contracts.specs import provenance
from bench.discovery.loading import non_default_params
from bench.errors import images_failed
from bench.render.risk import risk_sentence, risk_warning
from bench.render.runs import Score, list_scores
from bench.render.sentences import make_opening, probability_sentence
from bench.render.tables import console, print_explained, print_rows
from bench.running.command import removed_from
from bench.stats.agreement import Audit, audit_of
from bench.stats.measures import MeasuredMetric
from bench.stats.metrics import Statistics, confusion, summary_so_far, worst_confusions
from bench.stats.probability import Probability
from bench.store.decisions import read_decisions
from bench.store.documents import Manifest
from bench.store.folder import read_records
from bench.store.questions import QuestionAnswer, ending_answer, read_questions
from bench.store.runs import read_run
from bench.store.summary import Again, Cost, Ends, Metrics, Summary, read_again, read_swept


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
    decided = read_decisions(path, manifest, top=True)
    if resumed:
        terminal.print("This run is complete; --fresh would start it over.", style="dim")
    complete = summary is not None and summary.dataset.n_samples == len(manifest.samples)
    questions = read_questions(path, manifest)
    again = read_again(path, manifest, decided)
    audit = audit_of(read_swept(path, manifest), manifest, decided)
    if len(decided):
        summary = summary_so_far(manifest, summary, decided)
        for sentence in astuple(make_opening(manifest, summary, decided, again, audit, questions)):
            terminal.print(sentence)
        terminal.print()
    terminal.print(manifest.run_id, style="bold")
    terminal.print(_description(manifest, len(decided)))
    if labels := manifest.config.labels:
        terminal.print(labels)
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
    if summary is None or not len(decided):
        return
    print_rows(
        ["metric", "value"],
        _metric_lines(summary.metrics, manifest, ending_answer(questions, len(decided))),
    )
    terminal.print()
    confusions = worst_confusions(confusion(decided, len(manifest.classes)), manifest.classes)
    if confusions:
        print_rows(["true", "predicted", "images"], confusions, title="Worst confusions")
    _print_cost(summary.cost, manifest.classifier, again, audit)
    if (stated := manifest.identity.calibrated) is not None:
        terminal.print(risk_sentence(stated, manifest.sweep, summary))
        if warning := risk_warning(audit, stated):
            terminal.print(warning, style="yellow")
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


def _metric_lines(
    metrics: Metrics, manifest: Manifest, stop: QuestionAnswer | None
) -> list[list[str]]:
    shown = list_scores(metrics, len(manifest.classes), manifest.items, stop)
    first, *others = [[score.name, _score_text(score)] for score in shown]
    if manifest.items is not None:
        return [first, *others]
    in_scores = {"accuracy", "chance"}
    averages = [
        [name.replace("_", " "), f"{value:.4f}"]
        for name, value in metrics
        if isinstance(value, float) and name not in in_scores
    ]
    return [first, *averages, *others]


def _score_text(score: Score) -> str:
    low, high = score.ends
    guessing = "" if score.guessing is None else f"; guessing: {score.guessing:.4f}"
    note = f": {score.note}" if score.note else ""
    return f"{score.share:.4f}  (95 % interval {low:.4f} – {high:.4f}{guessing}){note}"


def _description(manifest: Manifest, decided: int) -> str:
    dataset, backbone, strategy = manifest.dataset, manifest.backbone, manifest.strategy
    source, identity = manifest.replayed_from, manifest.identity
    settings = {
        "seed": identity.seed,
        "loss": identity.scoring.loss,
        "space": identity.scoring.space,
        "plan": identity.scoring.draw_plan,
        **non_default_params("backbones", backbone.name, other_settings(manifest)),
    }
    prompt = user_template(manifest) or (manifest.prompts[0][0] if manifest.prompts else "")
    return (
        f"{dataset.name}/{dataset.split}: {decided} of {dataset.n_total} {_content(manifest)}"
        f" · {backbone.name}"
        f" ({provenance(backbone.trained_on)}, {backbone.dtype})"
        f" · {strategy.name} {assignments(strategy.params)} · {assignments(settings)}"
        + (f" · “{prompt}”" if prompt else "")
        + (f" · replayed from {source}" if source else "")
    )


def _content(manifest: Manifest) -> str:
    if (items := manifest.items) is None:
        return f"images, {len(manifest.classes)} classes"
    images = "one image" if items.images == 1 else f"{items.images} images"
    return f"items, {images} and up to {items.texts} texts each, {items.pool:,} texts in all"


def print_statistics(statistics: Statistics, noise: str | None = None) -> None:
    """Print the statistics of classes, groups and probabilities, and a sentence about noise."""
    rows: list[list[Any]] = [
        [
            row.name,
            row.n,
            row.predicted,
            f"{row.precision:.3f}",
            None if row.recall is None else f"{row.recall:.3f}",
            _interval_text(row.recall_ci95 or ()) or None,
            f"{row.f1:.3f}",
        ]
        for row in statistics.per_class
    ]
    head = ["class", "n", "predicted", "precision", "recall", "95 % interval", "F1"]
    optional = ["predicted", "95 % interval", "F1"]
    print_rows(head, rows, "Classes", optional=optional)
    if statistics.per_group:
        rows = [
            [g.group, g.n, f"{g.accuracy:.3f}", _interval_text(g.accuracy_ci95)]
            for g in statistics.per_group
        ]
        print_rows(["group", "n", "accuracy", "95 % interval"], rows, "Groups")
    _print_probability(statistics.probability)
    if noise:
        console().print(noise)


def _interval_text(interval: Sequence[float]) -> str:
    return "–".join(f"{end:.3f}" for end in interval)


def _print_probability(skill: Probability | None) -> None:
    if skill is None:
        console().print(
            "Probability that a decision is right: not known. `bench learn RUN calibration` on"
            " other images, such as a validation split, makes it known.",
            style="dim",
        )
        return
    rows = [[b.n, b.probability, b.accuracy, _interval_text(b.accuracy_ci95)] for b in skill.bins]
    print_rows(
        ["n", "probability", "accuracy", "95 % interval"],
        rows,
        title="Probability that a decision is right, against how often it was",
    )
    console().print(probability_sentence(skill))
    halves = [c for c in skill.coverage if c.coverage >= 0.5]
    console().print(
        f"The most probable half of the decisions has an accuracy of {halves[0].accuracy:.3f}, all"
        f" have {skill.accuracy:.3f}; the mean over all coverages is {skill.coverage_area:.3f}."
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
    if by is not None:
        lines = [
            [name, row, "", ""]
            if isinstance(row, str)
            else [name, f"{row.value:.4f}", _ci95(row), f"{row.images:,}"]
            for name, row in rows
        ]
        measured = next((row for _, row in rows if not isinstance(row, str)), None)
        words = measured.words if measured else "value"
        print_rows([by, words, "95 % interval", "images"], lines, right={"images"})
        return
    for _, row in rows:
        if isinstance(row, str):
            continue
        over = INTERVALS[row.interval] + (" and raters" if row.raters else "")
        facts = [
            [row.words, f"{row.value:.4f}  (95 % interval {_ci95(row)})"],
            ["images", f"{row.images:,}"],
            ["interval from", over],
            *([name, f"{value:.4f}"] for name, value in (row.raters or {}).items()),
        ]
        print_rows(["", ""], facts)


def _ci95(row: MeasuredMetric) -> str:
    low, high = row.ci95
    return f"{low:.4f} – {high:.4f}"
