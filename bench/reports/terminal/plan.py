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

# Fields of a run's plan.
PER_IMAGE = "evaluations_per_image"
_OTHER_DEVICES, _OTHER_DTYPES = "seconds_elsewhere", "seconds_in"
_ROW_NAMES = {"seconds": "time", _OTHER_DTYPES: "time in", _OTHER_DEVICES: "time elsewhere"}
_WITHOUT_ROW = {"warnings", "missing", "at_most", f"{PER_IMAGE}_at_least", "risk", "classifier"}
_WITHOUT_ROW |= {"dtype_elsewhere"}
_SHORT = 3600.0  # seconds; for shorter runs, times on other devices are not shown


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the plan of a run and its cost; rows that do not apply are left out."""
    hidden = set(_WITHOUT_ROW)
    if plan["evaluations"] == 0:  # every image is stored already
        hidden |= {"tflop", "seconds", "estimate", _OTHER_DTYPES, _OTHER_DEVICES}
    elif (plan["seconds"] or _SHORT) < _SHORT:
        hidden |= {_OTHER_DTYPES, _OTHER_DEVICES}
    least, most = plan[f"{PER_IMAGE}_at_least"], plan[PER_IMAGE]
    if plan["classifier"]:
        hidden |= {PER_IMAGE, "evaluations"}
        plan = {**plan, "cost": "1 pass per image"}
    share = 1.0 if least is None else least / max(1, most or 0)
    rows = [
        [_ROW_NAMES.get(name, name.replace("_", " ")), _plan_cell(plan, name, share)]
        for name, value in plan.items()
        if value is not None and name not in hidden
    ]
    print_rows(["", ""], rows)
    if risk := plan.get("risk"):
        console().print(SweepPlan.model_validate(risk).in_words())
    for warning in plan["warnings"]:
        console().print(warning, style="yellow")


def _plan_cell(plan: Mapping[str, Any], name: str, share: float) -> str:
    """Return a field of a plan as text; a cost as the range from `share` of its value to all of it.

    A plan states the largest cost, of which a strategy that stops early may need this share only.
    """
    value, dtype = plan[name], plan["dtype_elsewhere"]
    if name in (_OTHER_DEVICES, _OTHER_DTYPES):
        lines = [f"{key}: {_format_range(format_duration, v, share)}" for key, v in value.items()]
        if name == _OTHER_DEVICES:
            lines.append(
                f"in {dtype}, assumed: {UTILISATION[dtype]:.0%} of each one's published peak"
            )
        return "\n".join(lines)
    if isinstance(value, Mapping):
        return assignments(value)
    if name == "seed":  # no thousands separator
        return str(value)
    if name in (PER_IMAGE, "evaluations", "tflop", "seconds"):
        return _format_range(format_duration if name == "seconds" else _format_amount, value, share)
    return cell_text(value)


def _format_range(form: Callable[[float], str], most: float, share: float) -> str:
    """Return the range from `share` of `most` to `most`, or one text if both ends read alike."""
    low, high = form(most * share), form(most)
    return high if low == high else f"{low} to {high}"


def _format_amount(value: float) -> str:
    """Format without decimals; a number below 1 with one significant digit."""
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:.1g}"


def print_study_plan(plan: StudyPlan, wide: bool = False) -> None:
    """Print every run of a study, and the total cost; `wide`: with all notes."""
    varied = varied_axes(plan.axes, [cell.axes for cell in plan.cells]) or plan.axes[:1]
    head = ["run", "images", "to score", "total cost", "TFLOP", "time"]
    head += ["missing"] if plan.runs_missing else []
    lines = []
    for cell in plan.cells:
        run = " · ".join(cell.axes[name] for name in varied if name in cell.axes)
        lacks = [", ".join(cell.lacks)] if plan.runs_missing else []
        lines.append([run, *_cost_cells(cell), *lacks])
    print_rows(head, lines, f"{plan.name}: {_runs(plan.runs)}", head[1:], ("images", "TFLOP"))
    terminal = console()
    terminal.print(_total_sentence(plan))
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
    """Print why runs cannot be made, and one command that fetches the data and weights they lack.

    The reason why something is absent, such as a Hub that does not answer, is printed once.
    """
    problems, printed_reasons = plan.problems(), set[str]()
    absent: list[str] = []  # datasets and backbones that can be fetched
    for text, cells in problems.items():
        # Axes on which all runs with this problem agree.
        shared = dict(set.intersection(*(set(cell.axes.items()) for cell in cells)))
        shared = {name: shared[name] for name in cells[0].axes if name in shared}
        problem, _, advice = text.partition("\n")
        if advice and shared and len(problems) > 1:
            what, _, reason = problem.partition(", and ")
            text = f"{what}." if reason in printed_reasons else problem
            printed_reasons.add(reason)
            absent += [shared[name] for name in ("dataset", "backbone") if name in shared]
        console().print(f"{in_words(shared) or f'{len(cells)} runs'}: {text}")
    if absent:
        fetch = f"bench fetch {shlex.join(dict.fromkeys(absent))}"
        console().print(f"Where there is a network, this fetches them: {fetch}", soft_wrap=True)


def _cost_cells(cell: PlannedCell) -> list[str]:
    """Return the cells of a run: images, images to score, total cost, TFLOP and time."""
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


def _total_sentence(plan: StudyPlan) -> str:
    """Return what all runs of a study cost together, as sentences."""
    most = "at most " if plan.at_most else ""
    parts = [f"{plan.runs_there} of {_runs(plan.runs)} stored already"]
    if plan.runs_with_errors:
        parts.append(f"{plan.runs_with_errors} cannot run as they are")
    if plan.runs_missing:
        parts.append(f"{plan.runs_missing} cannot be made here yet")
    parts.append(f"{plan.images_to_score:,} images are left to score")
    parts.append(f"{most}{plan.evaluation_equivalents:,} evaluation equivalents")
    if plan.passes:
        parts.append(f"{plan.passes:,} passes of classifiers")
    if plan.tflop is not None:
        parts.append(f"{plan.tflop:,.3g} TFLOP")
    sentence = f"{', '.join(parts)}. {most.capitalize()}{format_duration(plan.seconds)}"
    if plan.runs_without_time:
        sentence += (
            f", and {_runs(plan.runs_without_time)} whose time is not known, because the backbone's"
            " speed on this machine has not been measured yet"
        )
    if plan.seconds_elsewhere and plan.seconds >= _SHORT:
        times = [f"{name}: {format_duration(s)}" for name, s in plan.seconds_elsewhere.items()]
        unknown = plan.runs_without_operations
        without = f"; without {_runs(unknown)} whose operations are not known" if unknown else ""
        sentence += (
            f". Elsewhere: {', '.join(times)}"
            f" (assumed: a share of each one's published peak{without})"
        )
    return f"{sentence}."


def step_line(step: Step) -> str:
    """Return the outcome of a study's run in one line."""
    head = f"{'pilot ' if step.stage == PILOT else ''}{step.number}/{step.of}  {step.place}"
    if step.finished is None:
        return f"{head}: failed: {step.cell.error}"
    summary = step.finished.summary
    low, high = summary.metrics.accuracy_ci95
    text = (
        f"{100 * summary.metrics.accuracy:.1f} % ({100 * low:.1f}–{100 * high:.1f}) of"
        f" {summary.dataset.n_samples:,} images"
    )
    text += ", stored already" if step.finished.resumed else f", {format_duration(step.seconds)}"
    if summary.failed_samples:
        text += f", {images_failed(summary.failed_samples)}"
    if step.left:
        text += f"; {format_duration(step.left)} left"
    return f"{head}: {text}"
