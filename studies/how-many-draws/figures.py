"""The figures of the study: one row of panels per recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from measuring import Result

WIDTH, HEIGHT = 10.0, 3.6  # inches per row
DPI = 100


def _panels(recordings: Sequence[Result], columns: int) -> tuple[Figure, Any]:
    rows = len(recordings)
    figure = Figure(figsize=(WIDTH, HEIGHT * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for row, measured in zip(panels, recordings, strict=True):
        row[0].set_title(f"{measured['backbone']} on {measured['dataset']}", fontsize="small")
        for axes in row:
            axes.grid(alpha=0.3)
    return figure, panels


def _ceiling(axes: Any, ceiling: Result) -> None:
    axes.axhspan(*ceiling["agreement_ci95"], color="0.92", zorder=-1)
    axes.axhline(ceiling["agreement"], color="0.6", linestyle="--", label="ceiling: two halves")


def draws(recordings: Sequence[Result], file: Path) -> None:
    """Draw agreement and accuracy by the number of draws."""
    figure, panels = _panels(recordings, 2)
    for (left, right), measured in zip(panels, recordings, strict=True):
        curve = measured["curve"]
        number = [row["draws"] for row in curve]
        agreement = np.array([row["agreement"] for row in curve])
        ends = np.array([row["agreement_ci95"] for row in curve]).T
        reach = np.clip([agreement - ends[0], ends[1] - agreement], 0, None)
        ceiling = measured["ceiling"]
        _ceiling(left, {**ceiling, "agreement_ci95": ceiling["ci95"]})
        left.errorbar(number, agreement, reach, fmt="o-", markersize=4, label="independent half")
        shared = [row["with_shared_draws"] for row in curve]
        left.plot(number, shared, ":", color="C3", label="all draws, shared")
        left.set_ylabel("agreement")
        left.legend(fontsize="x-small")
        noise = [row["accuracy_sd_over_draws"] or 0.0 for row in curve]
        right.errorbar(number, [row["accuracy"] for row in curve], noise, fmt="s-", markersize=4)
        right.set_ylabel("accuracy ± sd over draws")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xlabel("draws per prompt")
    figure.savefig(file, dpi=DPI)


def strategies(recordings: Sequence[Result], groups: Sequence[Result], file: Path) -> None:
    """Draw agreement and accuracy by evaluations; other models are lines of accuracy."""
    figure, panels = _panels(recordings, 2)
    for (left, right), measured in zip(panels, recordings, strict=True):
        full = measured["strategies"][0]  # whose agreement is the ceiling of this split
        _ceiling(left, full["settings"][0])
        for row in measured["strategies"]:
            settings = sorted(row["settings"], key=lambda setting: setting["evaluations"])
            cost = [setting["evaluations"] for setting in settings]
            for axes, value in ((left, "agreement"), (right, "accuracy")):
                axes.plot(
                    cost, [s[value] for s in settings], "o-", markersize=3, label=row["strategy"]
                )
        others = [group for group in groups if group["dataset"] == measured["dataset"]]
        for number, other in enumerate(row for group in others for row in group["rows"]):
            if other["name"] != measured["backbone"]:
                style = ("--", ":", "-.")[number % 3]
                right.axhline(
                    other["accuracy"], color="0.6", linestyle=style, linewidth=0.8,
                    label=other["name"],
                )  # fmt: skip
        left.set_ylabel("agreement with the other half")
        right.set_ylabel("accuracy")
        right.legend(fontsize="xx-small", ncols=2)
        for axes in (left, right):
            axes.set_xscale("log")
            axes.set_xlabel("evaluations per image")
    figure.savefig(file, dpi=DPI)


def levels(recordings: Sequence[Result], file: Path) -> None:
    """Draw the accuracy of each draw alone by its timestep, and of neighbouring groups of draws."""
    figure, panels = _panels(recordings, 1)
    for (axes,), measured in zip(panels, recordings, strict=True):
        found = measured["levels"]
        axes.plot(found["timesteps"], found["single_draw_accuracy"], ".", label="one draw")
        for number, part in enumerate(found["parts"]):
            axes.hlines(
                part["accuracy"], part["from"], part["to"], color="C1",
                label=None if number else f"{part['draws']} neighbouring draws",
            )  # fmt: skip
        axes.axhline(found["chance"], color="0.6", linestyle="--", label="chance")
        axes.axhline(measured["accuracy"]["accuracy"], color="C2", linestyle=":", label="all draws")
        axes.set_xlabel("timestep (higher: more noise)")
        axes.set_ylabel("accuracy")
        axes.legend(fontsize="x-small")
    figure.savefig(file, dpi=DPI)
