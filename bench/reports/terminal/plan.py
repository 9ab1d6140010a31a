"""Print plans of runs and studies, and the outcome of a study's runs."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from bench.errors import images_failed
from bench.machine.speeds import UTILISATION
from bench.reports.facts import assignments, format_duration
from bench.reports.study.methods import StudyRow, varied_axes
from bench.reports.study.tables import published_tables
from bench.reports.terminal.tables import console, print_rows, print_table
from bench.reports.text import cell_text
from bench.running.risk import SweepPlan
from bench.running.study.course import PILOT, Step
from bench.running.study.plan import PlannedCell, StudyPlan, in_words

PER_IMAGE = "evaluations_per_image"
_ELSEWHERE, _OTHERS = "seconds_elsewhere", "seconds_in"
_ROW_NAMES = {"seconds": "time", _OTHERS: "time in", _ELSEWHERE: "time elsewhere"}
_SHOWN_APART = {"warnings", "missing", "at_most", f"{PER_IMAGE}_at_least", "risk", "classifier"}
_SHOWN_APART |= {"dtype_elsewhere"}
_SHORT = 3600.0  # seconds; for shorter runs, times on other devices are not shown


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the plan of a run and its cost; rows that do not apply are left out."""
    if plan["evaluations"] == 0:  # every image is stored already
        hidden = ("tflop", "seconds", "estimate", _OTHERS, _ELSEWHERE)
        plan = {**plan, **dict.fromkeys(hidden)}
    elif (plan["seconds"] or _SHORT) < _SHORT:
        plan = {**plan, _OTHERS: None, _ELSEWHERE: None}
    if plan["classifier"]:
        plan = {**plan, PER_IMAGE: None, "evaluations": None, "cost": "1 pass per image"}
    least = plan[f"{PER_IMAGE}_at_least"]
    share = 1.0 if least is None else least / max(1, plan[PER_IMAGE] or 0)
    rows = [
        [_ROW_NAMES.get(name, name.replace("_", " ")), _plan_cell(plan, name, share)]
        for name, value in plan.items()
        if value is not None and name not in _SHOWN_APART
    ]
    print_rows(["", ""], rows)
    if risk := plan.get("risk"):
        console().print(SweepPlan.model_validate(risk).in_words())
    for warning in plan["warnings"]:
        console().print(warning, style="yellow")


def _plan_cell(plan: Mapping[str, Any], name: str, share: float) -> str:
    """Return a value of a plan as text; a cost as a range from `share` of it to all of it."""
    value, where = plan[name], plan["dtype_elsewhere"]
    if name in (_ELSEWHERE, _OTHERS):
        times = [f"{key}: {_format_range(format_duration, v, share)}" for key, v in value.items()]
        source = f"in {where}, assumed: {UTILISATION[where]:.0%} of each one's published peak"
        return "\n".join([*times, *([source] if name == _ELSEWHERE else [])])
    if isinstance(value, Mapping):
        return assignments(value)
    if name == "seed":  # no thousands separator
        return str(value)
    if name in (PER_IMAGE, "evaluations", "tflop", "seconds"):
        return _format_range(format_duration if name == "seconds" else _format_amount, value, share)
    return cell_text(value)


def _format_range(written: Callable[[float], str], most: float, share: float) -> str:
    least, largest = written(most * share), written(most)
    return largest if least == largest else f"{least} to {largest}"


def _format_amount(value: float) -> str:
    """Format without decimals; a number below 1 with one significant digit."""
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:.1g}"


def print_study_plan(plan: StudyPlan, wide: bool = False) -> None:
    """Print every run of a study, and the total cost; `wide`: with all notes."""
    several = varied_axes(plan.axes, [cell.axes for cell in plan.cells]) or plan.axes[:1]
    lines = [
        [" · ".join(cell.axes[name] for name in several if name in cell.axes), *_cost(cell)]
        for cell in plan.cells
    ]
    head = ["run", "images", "to score", "cost", "TFLOP", "time"]
    if plan.runs_missing:
        head.append("missing")
        lines = [[*line, ", ".join(c.lacks)] for line, c in zip(lines, plan.cells, strict=True)]
    print_rows(head, lines, f"{plan.name}: {_runs(plan.runs)}", head[1:], ("images", "TFLOP"))
    terminal = console()
    terminal.print(_total(plan))
    if (stop := plan.stop) is not None:
        terminal.print(
            "It stops when its question is answered: after at least"
            f" {stop.least:,} and at most {stop.most:,} images of all runs together."
        )
    _print_problems(plan)
    rows = [StudyRow(axes=c.axes, status="waiting", published=c.published) for c in plan.cells]
    for table in published_tables(plan.name, rows):
        print_table(table.wide if wide else table)
    for warning in plan.warnings:
        terminal.print(f"Warning: {warning}")


def _print_problems(plan: StudyPlan) -> None:
    """Print why runs cannot be made; what several lack is fetched by one command.

    The reason of an absence, such as a Hub that does not answer, is said once.
    """
    problems, said = plan.problems(), set[str]()
    absent: list[str] = []
    for text, cells in problems.items():
        shared = set.intersection(*(set(cell.axes.items()) for cell in cells))
        alike = {name: label for name, label in cells[0].axes.items() if (name, label) in shared}
        problem, _, advice = text.partition("\n")
        if advice and alike and len(problems) > 1:
            what, _, reason = problem.partition(", and ")
            text = f"{what}." if reason in said else problem
            said.add(reason)
            absent += [alike[name] for name in ("dataset", "backbone") if name in alike]
        console().print(f"{in_words(alike) or f'{len(cells)} runs'}: {text}")
    if absent:
        fetch = f"bench fetch {shlex.join(dict.fromkeys(absent))}"
        console().print(f"Where there is a network, this fetches them: {fetch}", soft_wrap=True)


def _cost(cell: PlannedCell) -> list[str]:
    if cell.error is not None:
        return ["–", "cannot run", "–", "–", "–"]
    left = "there" if cell.there else f"{cell.images_to_score:,}"
    most = "≤ " if cell.at_most and not cell.there else ""
    return [
        f"{cell.images:,}",
        left,
        f"{cell.passes:,} passes" if cell.passes else f"{most}{cell.evaluation_equivalents:,}",
        "–" if cell.tflop is None else f"{most}{cell.tflop:,.3g}",
        "–" if cell.seconds is None else f"{most}{format_duration(cell.seconds)}",
    ]


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _total(plan: StudyPlan) -> str:
    parts = [f"{plan.runs_there} of {_runs(plan.runs)} stored already"]
    if plan.runs_with_errors:
        parts.append(f"{plan.runs_with_errors} cannot run as they are")
    if plan.runs_missing:
        parts.append(f"{plan.runs_missing} cannot be made here yet")
    parts.append(f"{plan.images_to_score:,} images are left to score")
    most = "at most " if plan.at_most else ""
    parts.append(f"{most}{plan.evaluation_equivalents:,} evaluation equivalents")
    if plan.passes:
        parts.append(f"{plan.passes:,} passes of classifiers")
    if plan.tflop is not None:
        parts.append(f"{plan.tflop:,.3g} TFLOP")
    limit = "At most " if plan.at_most else ""
    sentence = f"{', '.join(parts)}. {limit}{format_duration(plan.seconds)}"
    if plan.runs_without_time:
        sentence += (
            f", and {_runs(plan.runs_without_time)} whose time is not known, because the backbone's"
            " speed on this machine has not been measured yet"
        )
    if plan.seconds_elsewhere and plan.seconds >= _SHORT:
        times = [
            f"{name}: {format_duration(most)}" for name, most in plan.seconds_elsewhere.items()
        ]
        unknown = plan.runs_without_operations
        but = f"; without {_runs(unknown)} whose operations are not known" if unknown else ""
        sentence += (
            f". Elsewhere: {', '.join(times)} (assumed: a share of each one's published peak{but})"
        )
    return f"{sentence}."


def step_line(step: Step) -> str:
    """Return the outcome of a cell in one line."""
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
        text += f", {format_duration(step.seconds)}"
    if summary.failed_samples:
        text += f", {images_failed(summary.failed_samples)}"
    left = "" if step.left is None or not step.left else f"; {format_duration(step.left)} left"
    return f"{head}: {text}{left}"
