"""Figures of studies (forest, corruption), and studies for pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from bench.discovery.loading import metric_specs
from bench.errors import UserError
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.study.documents import StudyReport
from bench.reports.study.report import study_report
from bench.reports.study.tables import error_words, study_tables
from bench.reports.text import Table, shorten
from bench.store.studies import list_studies, read_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StudyPart:
    """The content of a study on a page."""

    report: StudyReport
    tables: list[Table]
    figures: list[Markup]  # the forest plot if anything is decided, and that of changes
    folder: Path  # where it is stored


def study_part(folder: Path) -> StudyPart:
    """Return a study for a page; UserError if it does not exist or is damaged."""
    report = study_report(folder)
    name = re.sub(r"\W", "-", f"study-{folder.name}")
    figures = [forest_plot(report).inline(name)] if report.methods else []
    figures += [change_plot(report).inline(f"{name}-changes")] if report.changes else []
    return StudyPart(report, study_tables(report), figures, folder)


def find_studies(
    results: Path, runs: Collection[str], left_out: Callable[[Path, UserError], None]
) -> list[StudyPart]:
    """Return the studies in a results folder that include any of these run ids."""
    parts = []
    for folder in list_studies(results):
        try:
            if any(cell.run_id in runs for cell in read_study(folder).cells):
                parts.append(study_part(folder))
        except UserError as error:
            left_out(folder, error)
    return parts


MOST_LABEL = 44  # characters of a method's name that are shown


@dataclass(frozen=True)
class Bar:
    """A line of a forest plot."""

    name: str
    value: float
    interval: tuple[float, float]  # 95 %
    colour: Literal["right", "wrong"] = "right"  # field of the palette


def forest_plot(report: StudyReport) -> Drawing:
    """Draw the metric of every method, one panel per dataset; UserError if nothing is decided."""
    if not report.methods:
        raise UserError(f"The study {report.name} has no decided image yet; nothing to draw.")
    panels: dict[str, list[Bar]] = {}
    for method in report.methods:
        value, trained = method.shown, method.trained_on is not None
        bar = Bar(method.method, value.value, value.interval, "wrong" if trained else "right")
        panels.setdefault(method.board, []).append(bar)
    over = "other images and seeds" if report.tests_over == "seeds" else "other images"
    return _forest(report, panels, f"with its 95 % interval\nover {over}")


def change_plot(report: StudyReport) -> Drawing:
    """Draw the changes of methods, and their differences, by shift; UserError if there are none."""
    if not report.changes:
        raise UserError(f"The study {report.name} has no changes under a shift; nothing to draw.")
    panels: dict[str, list[Bar]] = {}
    for change in report.changes:
        less = f"{change.method} less {change.less}" if change.less else change.method
        bar = Bar(less, change.change.estimate, change.change.interval)
        panels.setdefault(f"{change.usual} → {change.shifted}", []).append(bar)
    return _forest(report, panels, "change under the shift, with its 95 % interval")


def _forest(report: StudyReport, panels: Mapping[str, Sequence[Bar]], axis: str) -> Drawing:
    metric = metric_specs()[report.metric]
    scale, unit = (100, ", %") if metric.unit == "share" else (1, "")

    def plot(figure: Figure, colours: Palette) -> None:
        heights = [len(bars) + 0.6 for bars in panels.values()]
        all_axes = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        for axes, (title, bars) in zip(all_axes, panels.items(), strict=True):
            for place, bar in enumerate(reversed(bars)):
                ends, colour = [scale * end for end in bar.interval], getattr(colours, bar.colour)
                axes.plot(ends, [place, place], color=colour, linewidth=1.6)
                axes.plot([scale * bar.value], [place], "o", color=colour, markersize=5)
            names = [shorten(bar.name, MOST_LABEL) for bar in reversed(bars)]
            axes.set_yticks(range(len(bars)), names)
            axes.set_ylim(-0.6, len(bars) - 0.4)
            axes.set_title(title, loc="left", fontsize=10.5)
            axes.grid(axis="y", visible=False)
        all_axes[-1].set_xlabel(f"{metric.words}{unit}, {axis}")

    label = "Values with their intervals; the values are in the table."
    lines = sum(map(len, panels.values()))
    return Drawing(plot, (7, 1.0 + 0.3 * lines + 0.5 * len(panels)), label)


def corruption_plot(report: StudyReport) -> Drawing:
    """Draw error against severity; UserError if there are no complete runs on corrupted images."""
    if not report.corruption:
        raise UserError(
            f"The study {report.name} has no complete runs on corrupted images; nothing to draw."
        )
    boards = list(dict.fromkeys(errors.board for errors in report.corruption))
    styles = ("-", "--", ":", "-.")
    metric = metric_specs()[report.metric]
    scale = 100 if metric.unit == "share" else 1

    def plot(figure: Figure, colours: Palette) -> None:
        all_axes = figure.subplots(1, len(boards), sharey=True, squeeze=False)[0]
        for axes, board in zip(all_axes, boards, strict=True):
            methods = [errors for errors in report.corruption if errors.board == board]
            for number, method in enumerate(methods):
                shares = {int(name): error for name, error in method.severities.items()}
                shares |= {} if method.clean is None else {0: method.clean}
                places = sorted(shares)
                axes.plot(
                    places,
                    [scale * shares[place] for place in places],
                    marker="o",
                    markersize=4,
                    linestyle=styles[number % len(styles)],
                    color=(colours.right, colours.wrong, colours.muted)[number % 3],
                    label=shorten(method.method, MOST_LABEL),
                )
            axes.set_title(f"{board}, {methods[0].images:,} images", loc="left", fontsize=10.5)
            axes.set_xlabel("severity (0: as they are)")
            axes.legend(fontsize=9)
        all_axes[0].set_ylabel(f"{error_words(metric)}, mean over corruptions")
        all_axes[0].set_ylim(0, scale * (metric.range[1] - metric.range[0]))

    label = "The error of every method by severity; the values are in the table."
    return Drawing(plot, (4.6 * len(boards), 3.4), label)
