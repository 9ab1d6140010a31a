"""Plot a sweep: agreement and accuracy against cost, one curve per strategy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.machine.files import writing
from bench.recordings.sweep import SelfAgreement, SweepRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(rows: Sequence[SweepRow], reference: SelfAgreement | None, file: Path) -> None:
    """Plot agreement and accuracy against evaluations per image, with 95 % intervals.

    Lines join the settings of a strategy in order of cost, and the Pareto front of the agreement.
    Crosses are named runs, at their cost in evaluations of their own network. The dashed line and
    the band are `reference`, the agreement of two full sweeps, and its interval. The suffix of
    `file` determines the format; UserError if it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    front = sorted((row.cost, row.agreement) for row in rows if row.pareto)
    left.step(*zip(*front, strict=True), where="post", color="0.6", linewidth=1, zorder=0)
    if reference is not None:
        left.axhspan(*reference.agreement_ci95, color="0.93", zorder=-1)
        left.axhline(reference.agreement, color="0.7", linestyle="--", label="another seed")
    replayed = [row for row in rows if not row.point]
    for axes, value in ((left, "agreement"), (right, "accuracy")):
        for name in dict.fromkeys(row.summary.strategy.name for row in replayed):
            same = [row for row in replayed if row.summary.strategy.name == name]
            _draw_curve(axes, sorted(same, key=lambda row: row.cost), name, value, "o-")
        for row in rows:
            if row.point:
                name = f"{row.summary.backbone.name} (its own network)"
                _draw_curve(axes, [row], name, value, "X")
        axes.set_xscale("log")
        axes.set_xlabel("evaluation equivalents per image")
        axes.grid(alpha=0.3)
    left.set_ylabel("agreement with the exhaustive decision")
    right.set_ylabel("accuracy")
    names = left.get_legend_handles_labels()  # below the plot, where it hides no error bars
    figure.legend(*names, loc="outside lower center", ncols=5, fontsize="small")
    first = replayed[0].summary
    figure.suptitle(f"{first.replayed_from}, {first.dataset.n_samples} images")
    with writing(f"The plot {file}"):
        figure.savefig(file, dpi=150)


def _draw_curve(
    axes: Axes,
    rows: Sequence[SweepRow],
    label: str,
    value: str,
    line_style: str,
) -> None:
    """Draw `agreement` or `accuracy` (`value`) of some rows against their cost, with intervals."""
    figures = [row if value == "agreement" else row.summary.metrics for row in rows]
    middle = np.array([getattr(figure, value) for figure in figures])
    low, high = np.array([getattr(figure, f"{value}_ci95") for figure in figures]).T
    error_bars = np.clip([middle - low, high - middle], 0, None)
    cost = [row.cost for row in rows]
    axes.errorbar(
        cost,
        middle,
        error_bars,
        fmt=line_style,
        markersize=5,
        linewidth=0.8,
        elinewidth=0.7,
        label=label,
    )
