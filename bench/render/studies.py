"""Studies on pages: their tables, and the forest plot."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from bench.boards.study.report import StudyReport, study_report
from bench.boards.study.tables import study_tables
from bench.boards.text_tables import TextTable
from bench.errors import UserError
from bench.store.studies import list_studies, read_study


@dataclass(frozen=True)
class StudyPart:
    """A study as a page shows it.

    Attributes:
        report: what it says.
        tables: the same as text.
        figure: the forest plot, a data URI; "": nothing is decided yet.
        folder: where it is stored.
    """

    report: StudyReport
    tables: list[TextTable]
    figure: str
    folder: Path


def study_part(folder: Path) -> StudyPart:
    """Return a study for a page.

    Raises:
        UserError: there is none, or it is damaged.
    """
    report = study_report(folder)
    return StudyPart(report, study_tables(report), _figure(report), folder)


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


def _figure(report: StudyReport) -> str:
    import matplotlib

    from bench.render.study_figures import forest_plot

    if not report.methods:
        return ""
    out = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": report.name}):
        forest_plot(report).savefig(out, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"
