"""A study on a terminal: its tables, its plan, and its cells as they are made."""

from __future__ import annotations

from collections.abc import Sequence

from bench.boards.text import TextTable
from bench.render.tables import console, table
from bench.running.study.plan import PlannedCell, StudyPlan
from bench.running.study.run import PILOT, Step, in_words


def print_tables(tables: Sequence[TextTable]) -> None:
    """Print a study's tables, each with what a reader must know below it."""
    terminal = console()
    for text in tables:
        table(text.head, text.rows, text.title, text.right, text.optional)
        for note in text.below:
            terminal.print(note)


def print_study_plan(plan: StudyPlan) -> None:
    """Print every run of a study, and what all of them take."""
    several = [
        name for name in plan.axes if len({cell.axes.get(name) for cell in plan.cells}) > 1
    ] or plan.axes[:1]
    lines = [
        [" · ".join(cell.axes[name] for name in several if name in cell.axes), *_cost(cell)]
        for cell in plan.cells
    ]
    head = ["run", "images", "to score", "equivalents", "TFLOP", "hours"]
    table(head, lines, f"{plan.name}: {plan.runs} runs", head[1:], ("images", "TFLOP"))
    terminal = console()
    terminal.print(_total(plan))
    for cell in plan.cells:
        if cell.error is not None:
            terminal.print(f"{in_words(cell.axes)}: {cell.error}")
    for warning in plan.warnings:
        terminal.print(f"Warning: {warning}")


def _cost(cell: PlannedCell) -> list[str]:
    if cell.error is not None:
        return ["–", "cannot run", "–", "–", "–"]
    left = "there" if cell.there else f"{cell.images_to_score:,}"
    most = "≤ " if cell.at_most and not cell.there else ""
    return [
        f"{cell.images:,}",
        left,
        f"{most}{cell.evaluation_equivalents:,}",
        "–" if cell.tflop is None else f"{most}{cell.tflop:,.3g}",
        "–" if cell.seconds is None else f"{most}{cell.seconds / 3600:,.3f}",
    ]


def _total(plan: StudyPlan) -> str:
    parts = [f"{plan.runs_there} of {plan.runs} runs are stored already"]
    if plan.runs_with_errors:
        parts.append(f"{plan.runs_with_errors} cannot run as they are")
    parts.append(f"{plan.images_to_score:,} images are left to score")
    most = "at the most " if plan.at_most else ""
    parts.append(f"{most}{plan.evaluation_equivalents:,} evaluation equivalents")
    if plan.tflop is not None:
        parts.append(f"{plan.tflop:,.3g} TFLOP")
    sentence = (
        f"{', '.join(parts)}. {duration(plan.seconds)}{' at the most' if plan.at_most else ''}"
    )
    if plan.runs_without_time:
        sentence += (
            f", and {plan.runs_without_time} runs whose time is not known, since their backbones"
            " have not run on this machine yet"
        )
    return f"{sentence}."


def step_line(step: Step) -> str:
    """Return what became of a cell, in a line."""
    head = f"{'pilot ' if step.stage == PILOT else ''}{step.number}/{step.of}  {step.place}"
    if step.finished is None:
        return f"{head}: failed: {step.cell.error}"
    summary = step.finished.summary
    low, high = summary.metrics.accuracy_ci95
    text = (
        f"{100 * summary.metrics.accuracy:.1f} % ({100 * low:.1f}–{100 * high:.1f}) of"
        f" {summary.dataset.n_samples:,} images"
    )
    if step.finished.resumed:
        text += ", stored already"
    else:
        text += f", {duration(step.seconds)}"
    if summary.failed_samples:
        text += f", {summary.failed_samples} images failed"
    left = "" if step.left is None or not step.left else f"; {duration(step.left)} left"
    return f"{head}: {text}{left}"


def duration(seconds: float) -> str:
    """Return a time as a reader takes it in: 0.8 s, 12 s, 5 min, 3.4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
