"""The plan of a run: what it would be and cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.boards.formats import assignments
from bench.render.console import console
from bench.render.tables import cell_text, table

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
    for said in plan["warnings"]:
        console().print(said, style="yellow")


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
