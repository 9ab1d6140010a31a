"""Studies on pages: their tables, and the forest plot."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from bench.boards.study.report import StudyReport, study_report
from bench.boards.study.tables import study_tables
from bench.boards.text_tables import TextTable
from bench.errors import UserError
from bench.render.study_figures import forest_in_page
from bench.store.studies import list_studies, read_study


@dataclass(frozen=True)
class StudyPart:
    """A study as a page shows it.

    Attributes:
        report: what it says.
        tables: the same as text.
        figure: the forest plot; empty: nothing is decided yet.
        folder: where it is stored.
    """

    report: StudyReport
    tables: list[TextTable]
    figure: Markup
    folder: Path


def study_part(folder: Path) -> StudyPart:
    """Return a study for a page.

    Raises:
        UserError: there is none, or it is damaged.
    """
    report = study_report(folder)
    figure = forest_in_page(report, re.sub(r"\W", "-", f"study-{folder.name}"))
    return StudyPart(report, study_tables(report), figure, folder)


def studies_of(
    results: Path, runs: Collection[str], left_out: Callable[[Path, UserError], None]
) -> list[StudyPart]:
    """Return the studies in a results folder that have one of these runs.

    Args:
        results: the folder.
        runs: ids of runs.
        left_out: is told of each study that cannot be read.
    """
    found = []
    for folder in list_studies(results):
        try:
            if any(cell.run_id in runs for cell in read_study(folder).cells):
                found.append(study_part(folder))
        except UserError as error:
            left_out(folder, error)
    return found
