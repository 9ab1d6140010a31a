"""Figures of studies (forest, corruption), and studies for pages."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from markupsafe import Markup

from bench.discovery.queries import metric_specs
from bench.errors import UserError
from bench.machine.libraries import Figure
from bench.reports.facts import Fact, labelled, metric_unit
from bench.reports.figures.plots import MOST_LABEL, Point, draw_forest
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.study.documents import StudyReport
from bench.reports.study.report import study_report
from bench.reports.study.tables import error_words, study_tables
from bench.reports.text import Table, shorten
from bench.store.studies import list_studies, read_study


@dataclass(frozen=True)
class StudyPart:
    """The content of a study on a page."""

    report: StudyReport
    tables: list[Table]
    figures: list[Markup]  # the forest plot if anything is decided, and that of changes
    folder: Path  # where it is stored
    same_as: Self | None = None  # an earlier study on the page with the same tables

    @property
    def content(self) -> list[Table]:
        """The tables without what answers the study's question."""
        return [replace(table, above="") for table in self.tables]


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
    """Return the studies in a results folder that include any of these run ids.

    A study with the tables of an earlier one is the `same_as` that; its question may be another.
    """
    parts: list[StudyPart] = []
    for folder in list_studies(results):
        try:
            if any(cell.run_id in runs for cell in read_study(folder).cells):
                part = study_part(folder)
                same = (p for p in parts if p.same_as is None and p.content == part.content)
                parts.append(replace(part, same_as=next(same, None)))
        except UserError as error:
            left_out(folder, error)
    return parts


def forest_plot(report: StudyReport) -> Drawing:
    """Draw the metric of every method, one panel per dataset; UserError if nothing is decided."""
    if not report.methods:
        raise UserError(f"The study {report.name} has no decided image yet; nothing to draw.")
    unit = metric_unit(metric_specs()[report.metric])
    panels: dict[str, list[Point]] = {}
    for method in report.methods:
        value, ends = method.shown.value, None if report.stop else method.shown.interval
        text = Fact("", value, unit, ends).text
        colour = "right" if method.trained_on is None else "wrong"
        panels.setdefault(method.board, []).append(Point(method.method, value, ends, text, colour))
    over = "other images and seeds" if report.tests_over == "seeds" else "other images"
    words = "on the images of each" if report.stop else f"with its 95 % interval\nover {over}"
    return draw_forest(panels, *_axis(report, words))


def change_plot(report: StudyReport) -> Drawing:
    """Draw the changes of methods, and their differences, by shift; UserError if there are none."""
    if not report.changes:
        raise UserError(f"The study {report.name} has no changes under a shift; nothing to draw.")
    unit = metric_unit(metric_specs()[report.metric], difference=True)
    panels: dict[str, list[Point]] = {}
    for change in report.changes:
        name = f"{change.method} less {change.less}" if change.less else change.method
        value, ends = change.change.estimate, change.change.interval
        bar = Point(name, value, ends, Fact("", value, unit, ends).text)
        panels.setdefault(f"{change.usual} → {change.shifted}", []).append(bar)
    return draw_forest(panels, *_axis(report, "change under the shift, with its 95 % interval"))


def _axis(report: StudyReport, words: str) -> tuple[str, float]:
    """Return the title of an axis of the tested metric, and the factor of its values."""
    metric = metric_specs()[report.metric]
    scale = 100 if metric.unit == "share" else 1
    return f"{labelled(metric.words, metric_unit(metric))}, {words}", scale


def corruption_plot(report: StudyReport) -> Drawing:
    """Draw error against severity; UserError if there are no complete runs on corrupted images."""
    if not report.corruption:
        raise UserError(
            f"The study {report.name} has no complete runs on corrupted images; nothing to draw."
        )
    boards = list(dict.fromkeys(errors.board for errors in report.corruption))
    styles = ("-", "--", ":", "-.")
    metric, (_, scale) = metric_specs()[report.metric], _axis(report, "")

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
