"""A repeated experiment: our figure beside the published one, and what differs."""

from __future__ import annotations

from bench.render.console import console
from bench.render.plan import print_plan
from bench.render.tables import table
from bench.running.verbs.reproduce import Reproduction


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
        table(["what differs from the publication"], [[said] for said in made.differs])
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
