"""The table of a run's images: names for classes, nothing for what is not known."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers.runs import store

from bench.reports.run_view import read_view
from bench.reports.samples import SAMPLE_COLUMNS, sample_rows
from bench.store.folder import read_manifest
from bench_plugins.exporters.tables import ImagesCsv, ImagesParquet


def test_a_row_per_image_in_the_manifest_s_order(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1, 2], [0, 2, None], classes=["ant", "=bee", "cat"])
    rows = list(sample_rows(path, read_manifest(path)))
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
    assert [row["stability"] for row in sample_rows(path, read_manifest(path))] == stability


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
    assert table.to_pylist() == list(sample_rows(path, run.manifest))
    assert table.schema.metadata[b"run_id"].decode() == run.manifest.run_id
