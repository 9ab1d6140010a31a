"""The plan of a run, and a repeated experiment beside the published one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.boards.formats import assignments
from bench.render.tables import cell_text, console, table
from bench.running.verbs.reproduce import Reproduction

PER_IMAGE = "evaluations_per_image"


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what a run would be and cost; what does not apply to it is left out."""
    if plan["seed"] is None and plan["noise"] is None:  # a classifier's: each image once
        plan = {**plan, PER_IMAGE: None, "evaluations": None, "cost": "1 pass per image"}
    least = plan[f"{PER_IMAGE}_at_least"]
    share = 1.0 if least is None else least / max(1, plan[PER_IMAGE] or 0)
    rows = [
        ["time" if name == "seconds" else name.replace("_", " "), _plan_cell(name, value, share)]
        for name, value in plan.items()
        if value is not None and name not in ("warnings", "at_most", f"{PER_IMAGE}_at_least")
    ]
    table(["", ""], rows)
    for warning in plan["warnings"]:
        console().print(warning, style="yellow")


def _plan_cell(name: str, value: Any, share: float) -> str:
    """Return a value of a plan; a cost, whose least is `share` of it, as a range."""
    if isinstance(value, Mapping):
        return assignments(value)
    if name == "seed":  # a name rather than an amount
        return str(value)
    if name not in (PER_IMAGE, "evaluations", "tflop", "seconds"):
        return cell_text(value)
    written = _duration if name == "seconds" else _amount
    least, most = written(value * share), written(value)
    return most if least == most else f"{least} to {most}"


def _amount(value: float) -> str:
    """Return a number without decimals; a small one with its first digit that is not 0."""
    return f"{value:,.0f}" if value >= 1 or value == 0 else f"{value:.1g}"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    whole = max(1, round(seconds))
    return f"{whole} second{'s' * (whole > 1)}"


def print_reproduction(made: Reproduction) -> None:
    """Print ours and theirs, the difference, what differs and the cost; or the plan."""
    if made.plan is not None:
        print_plan(made.plan.plain())
    rows = [["published", _percent(made.published) + _over(made.published_images), made.source]]
    if made.ours is not None:
        low_high = made.interval
        interval = f"95 %: {low_high[0]:.2%} – {low_high[1]:.2%}" if low_high else ""
        rows.append(["ours", _percent(made.ours) + _over(made.images), interval])
    if made.difference is not None:
        rows.append(["difference", f"{100 * made.difference:+.2f} points", _meaning(made)])
    if made.seconds is not None:
        cost = f"{made.evaluations_per_image:,.0f} evaluations per image"
        rows.append(["cost", cost, f"{made.seconds:,.1f} s in all"])
    table([made.protocol, made.metric.replace("_", " "), ""], rows)
    if made.differs:
        table(["what differs from the publication"], [[difference] for difference in made.differs])
    if made.results_dir:
        console().print(f"Results: {made.results_dir}", highlight=False, markup=False)


def _percent(value: float | None) -> str:
    return "none at first hand" if value is None else f"{value:.2%}"


def _over(images: int | None) -> str:
    return "" if images is None else f" ({images:,} images)"


def _meaning(made: Reproduction) -> str:
    if made.rehearsal:
        return "a rehearsal: not comparable"
    if made.interval is None or made.published is None:
        return ""
    inside = made.interval[0] <= made.published <= made.interval[1]
    return "the published figure is " + ("in our interval" if inside else "outside our interval")
