"""A study as an object: what Python and notebooks get."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.boards.study.report import StudyMethod, StudyReport
from bench.boards.study.rows import StudyRow
from bench.boards.study.tables import study_tables
from bench.boards.text import html
from bench.errors import UserError
from bench.stats.many import Difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Table = Literal["runs", "methods", "differences"]


class StudyResult:
    """A study: its runs, its methods with their spread, and which of them differ.

    Attributes:
        folder: where it is stored.
        report: all of it, as `bench study FILE --show --json` prints it.
    """

    def __init__(self, folder: Path, report: StudyReport) -> None:
        self.folder = folder
        self.report = report

    @property
    def name(self) -> str:
        """The study's name."""
        return self.report.name

    @property
    def runs(self) -> list[StudyRow]:
        """One row per run that the study declares, made or not."""
        return self.report.rows

    @property
    def methods(self) -> list[StudyMethod]:
        """One row per method and dataset."""
        return self.report.methods

    @property
    def differences(self) -> dict[str, list[Difference]]:
        """Dataset and split → the differences of its methods."""
        return {board.board: board.differences for board in self.report.differences}

    def to_pandas(self, table: Table = "runs") -> DataFrame:
        """Return a table: of the runs, with a column per axis; of the methods; of the differences.

        Raises:
            bench.errors.UserError: there is no table of that name.
        """
        import pandas as pd

        if table == "runs":
            return pd.DataFrame([_flat(row.plain(), "axes") for row in self.runs])
        if table == "methods":
            rows = [_flat(one.model_dump(mode="json"), "axes", "spread") for one in self.methods]
            return pd.DataFrame(rows)
        if table == "differences":
            return pd.DataFrame(
                [
                    {"board": board, **one.model_dump(mode="json")}
                    for board, found in self.differences.items()
                    for one in found
                ]
            )
        raise UserError(f"to_pandas({table!r}): there are runs, methods and differences.")

    def forest_figure(self) -> Figure:
        """Return the accuracy of every method with its interval.

        Raises:
            bench.errors.UserError: no image is decided yet.
        """
        from bench.render.study_figures import forest_plot

        return forest_plot(self.report)

    def ranks_figure(self) -> Figure:
        """Return the mean ranks with their critical difference, from ten datasets on.

        Raises:
            bench.errors.UserError: there are fewer.
        """
        from bench.render.study_figures import critical_difference_plot

        return critical_difference_plot(self.report.ranks)

    def __repr__(self) -> str:
        report = self.report
        return f"StudyResult({report.name!r}, {report.done} of {report.cells} runs)"

    def _repr_html_(self) -> str:
        """Return the tables that a notebook shows."""
        parts = [f"<p>{html(self.name)}: {self.report.done} of {self.report.cells} runs</p>"]
        for one in study_tables(self.report):
            head = "".join(f"<th>{html(name)}</th>" for name in one.head)
            rows = "".join(
                f"<tr>{''.join(f'<td>{html(cell)}</td>' for cell in row)}</tr>" for row in one.rows
            )
            parts.append(
                f"<table><caption>{html(one.title)}</caption><tr>{head}</tr>{rows}</table>"
            )
            parts += [f"<p>{html(said)}</p>" for said in one.below]
        return "".join(parts)


def _flat(row: Mapping[str, object], *names: str) -> dict[str, object]:
    """Return a row whose parts of these names are columns of their own."""
    flat: dict[str, object] = {}
    for name in names:
        part = row[name]
        assert isinstance(part, dict)
        flat |= part
    return {**flat, **{n: v for n, v in row.items() if n not in flat and n not in names}}
