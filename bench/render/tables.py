"""Tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.boards.formats import assignments, drawn, provenance
from bench.render.console import console, shown, table
from bench.stats.metrics import worst_confusions
from bench.store.decisions import read_decisions
from bench.store.documents import Cost, Manifest, Summary
from bench.store.folder import read_manifest, read_records, read_summary


def print_run(
    path: str | Path,
    manifest: Manifest | None = None,
    summary: Summary | None = None,
    resumed: bool = False,
) -> None:
    """Print a run: what it is, its metrics with interval, worst confusions, cost and place.

    Args:
        path: its folder.
        manifest: with the images to show, where they are not all of the stored run's.
        summary: of these images.
        resumed: whether nothing was left to score.
    """
    path = Path(path)
    terminal = console()
    whole = read_manifest(path)
    if manifest is None or summary is None:
        manifest, summary = whole, read_summary(path)
    decided = read_decisions(path, manifest)
    if resumed:
        terminal.print("This run is complete; --fresh would start it over.", style="dim")
    terminal.print(manifest.run_id, style="bold")
    terminal.print(_description(manifest, len(decided)))
    if summary is None:
        terminal.print(
            f"Not complete: {len(decided)} of {len(manifest.samples)} images are decided; the"
            " same `bench run` resumes it.",
            style="yellow",
        )
        return
    if len(manifest.samples) < len(whole.samples):
        terminal.print(
            f"These are the {len(manifest.samples)} images asked for; the stored run is about"
            f" {len(whole.samples)}.",
            style="dim",
        )
    elif len(decided) != summary.dataset.n_samples:
        terminal.print(
            f"A larger run is under way: {len(decided)} of {len(manifest.samples)} images are"
            f" decided. The metrics are of the {summary.dataset.n_samples} before.",
            style="yellow",
        )
    low, high = summary.metrics.accuracy_ci95
    chance = 1 / len(manifest.classes)
    accuracy = (
        f"{summary.metrics.accuracy:.4f}  (95 % interval {low:.4f} – {high:.4f};"
        f" guessing: {chance:.4f})"
    )
    rows = [["accuracy", accuracy]]
    rows += [
        [name.replace("_", " "), f"{value:.4f}"]
        for name, value in summary.metrics
        if isinstance(value, float) and name not in ("accuracy", "chance")
    ]
    table(["metric", "value"], rows)
    confusions = worst_confusions(decided, manifest.classes)
    if confusions:
        table(["true", "predicted", "images"], confusions, title="Worst confusions")
    _print_cost(summary.cost)
    if summary.failed_samples:
        sample_id = decided.sample_ids[int(np.flatnonzero(decided.failed)[0])].as_py()
        terminal.print(
            f"{summary.failed_samples} images failed and count as wrong, such as"
            f" {sample_id}: {read_records(path)[sample_id]['error']}",
            style="yellow",
        )
    terminal.print(f"Results: {path}", soft_wrap=True)
    for picture in sorted(path.glob("*.png")):
        terminal.print(f"Picture: {picture}", soft_wrap=True)


def _description(manifest: Manifest, decided: int) -> str:
    dataset, backbone, strategy = manifest.dataset, manifest.backbone, manifest.strategy
    source = manifest.replayed_from
    return (
        f"{dataset.name}/{dataset.split}: {decided} of {dataset.n_total} images,"
        f" {len(manifest.classes)} classes · {backbone.name}"
        f" ({provenance(backbone.trained_on)}, {backbone.dtype})"
        f" · {strategy.name} {assignments(strategy.params)}"
        + "".join(f" · {note}" for note in drawn(manifest.identity.scoring.draw_plan))
        + (f" · replayed from {source}" if source else "")
    )


def print_statistics(found: Mapping[str, Any]) -> None:
    """Print what `bench.stats.intervals.statistics` returned, but for the metrics."""
    rows = [
        [
            row["class"],
            row["n"],
            row["predicted"],
            f"{row['precision']:.3f}",
            None if row["recall"] is None else f"{row['recall']:.3f}",
            "–".join(f"{end:.3f}" for end in row["recall_ci95"] or ()) or None,
            f"{row['f1']:.3f}",
        ]
        for row in found["per_class"]
    ]
    table(["class", "n", "predicted", "precision", "recall", "95 % interval", "F1"], rows)
    if calibration := found["calibration"]:
        rows = [
            [f"{b['low']:.1f}–{b['high']:.1f}", b["n"], b["confidence"], b["accuracy"]]
            for b in calibration["bins"]
            if b["n"]
        ]
        title = f"Calibration: ECE {calibration['ece']:.4f} over {calibration['n']:,} images"
        table(["confidence", "n", "mean confidence", "accuracy"], rows, title=title)
    if stability := found["stability"]:
        console().print(
            f"Another seed: {stability['expected_flips']:.1f} of {stability['n']:,} decisions"
            f" would be expected to flip ({stability['doubtful']:,} have a chance above 5 %);"
            f" the accuracy's standard error over seeds is {stability['accuracy_stderr']:.4f}.",
        )


def _print_cost(cost: Cost) -> None:
    text = f"Cost: {cost.evaluations_per_image:,.1f} evaluations per image"
    if cost.linearisations:
        text = (
            f"Cost: {cost.equivalents_per_image:,.1f} evaluation equivalents per image"
            f" ({cost.evaluations:,} evaluations, {cost.linearisations:,} linearisations)"
        )
    if cost.seconds is not None and cost.images_per_second:
        text += f", {cost.seconds:,.1f} s scoring ({cost.images_per_second:.2f} images/s)"
    if cost.total_seconds is not None:
        text += f", {cost.total_seconds:,.1f} s in all"
    console().print(text)


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what a run would be and cost."""
    least = plan["evaluations_per_image_at_least"]
    share = 1.0 if least is None else least / plan["evaluations_per_image"]
    rows = [
        ["time" if name == "seconds" else name.replace("_", " "), _plan_cell(name, value, share)]
        for name, value in plan.items()
        if not name.endswith("_at_least")
    ]
    table(["plan", ""], rows)


def _plan_cell(name: str, value: Any, share: float) -> str:
    """Return a value of a plan; a cost, whose least is `share` of it, as a range."""
    if isinstance(value, Mapping):
        return assignments(value)
    if value is None or name not in ("evaluations_per_image", "evaluations", "tflop", "seconds"):
        return shown(value)
    written = _duration if name == "seconds" else "{:,.0f}".format
    least, most = written(value * share), written(value)
    return most if share == 1 else f"{least} to {most}"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.0f} seconds"
