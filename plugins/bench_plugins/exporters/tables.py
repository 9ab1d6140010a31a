"""Tables of a run: its images as CSV or parquet, its metrics for LaTeX."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from bench.contracts.exporters import Exporter
from bench.reports.leaderboard.board import make_boards
from bench.reports.leaderboard.rows import board_row
from bench.reports.run_view import SAMPLE_COLUMNS, RunView
from bench.reports.text import csv_text, to_latex


class ImagesCsv(Exporter):
    """One row per image, safe for a spreadsheet: label, prediction, margin, cost, stability."""

    spec: ClassVar[dict[str, Any]] = {"name": "csv"}

    def write(self, run: RunView, folder: Path) -> None:
        """Write the table; UserError if nothing is decided."""
        run.stored.require_decisions()
        rows = (row.values() for row in run.samples)
        (folder / "images.csv").write_text(csv_text(SAMPLE_COLUMNS, rows), "utf-8")


class ImagesParquet(Exporter):
    """The table of csv, typed, with the run's id in the metadata."""

    spec: ClassVar[dict[str, Any]] = {"name": "parquet"}

    def write(self, run: RunView, folder: Path) -> None:
        """Write the table; UserError if nothing is decided."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        run.stored.require_decisions()
        fields = [(name, pa.type_for_alias(kind)) for name, kind in SAMPLE_COLUMNS.items()]
        schema = pa.schema(fields, metadata={"run_id": run.manifest.run_id})
        table = pa.Table.from_pylist(list(run.samples), schema=schema)
        pq.write_table(table, folder / "images.parquet", compression="zstd")


class Latex(Exporter):
    """Metrics and cost of a complete run as a table for a paper, with the package booktabs."""

    spec: ClassVar[dict[str, Any]] = {"name": "latex"}

    def write(self, run: RunView, folder: Path) -> None:
        """Write the table; UserError if the run is not complete."""
        run.stored.require_summary()
        [board] = make_boards([board_row(run)])
        table = board.table("wide")
        units = "cost: evaluation equivalents per image; s: seconds per image"
        below = [f"{table.above} · {units} · run {run.manifest.run_id}", *table.below]
        cells = [line[1:] for line in table.rows]  # without the rank
        table = replace(table, head=table.head[1:], rows=cells, above="", below=below)
        (folder / "run.tex").write_text(to_latex([table]) + "\n", "utf-8")
