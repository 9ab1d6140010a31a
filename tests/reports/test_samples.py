"""The table of a run's images: names for classes, nothing for what is not known."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.runs import store

from bench.reports.run_view import SAMPLE_COLUMNS, read_view
from bench_plugins.exporters.tables import ImagesCsv, ImagesParquet


def test_a_row_per_image_in_the_manifest_s_order(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1, 2], [0, 2, None], classes=["ant", "=bee", "cat"])
    rows = list(read_view(path).samples)
    assert [row["label"] for row in rows] == ["ant", "=bee", "cat"]
    assert [row["prediction"] for row in rows] == ["ant", "cat", None]
    assert [row["correct"] for row in rows] == [True, False, False]
    assert all(list(row) == list(SAMPLE_COLUMNS) for row in rows)


@pytest.mark.parametrize(
    ("strategy", "stability"),
    [("full", [0.9, 0.9]), ("race", [None, None]), ("not-installed", [None, None])],
)
def test_margins_of_a_strategy_that_stops_make_no_probability(
    strategy: str, stability: list[float | None], tmp_path: Path
) -> None:
    path = store(tmp_path, [0, 1], [0, 1], strategy=strategy)
    assert [row["stability"] for row in read_view(path).samples] == stability


def test_both_files_hold_the_rows(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1], [0, None], classes=["ant", "=bee"], n_classes=2)
    run = read_view(path)
    ImagesCsv().write(run, tmp_path)
    ImagesParquet().write(run, tmp_path)
    with (tmp_path / "images.csv").open(encoding="utf-8") as file:
        first, failed = csv.DictReader(file)
    assert first["score"] == "0.1" and failed["error"] == "broken"
    assert not failed["label"].startswith("=")  # a spreadsheet would compute it
    table = pq.read_table(tmp_path / "images.parquet")
    assert table.to_pylist() == list(run.samples)
    assert table.schema.metadata[b"run_id"].decode() == run.manifest.run_id
