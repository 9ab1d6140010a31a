"""A row per stored run and metric, from the shell and in Python."""

import csv
import io
import json
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.runs import store

import bench as toolkit

LABELS = [0, 1, 2] * 4


def test_rows_are_the_metrics_of_summaries(tmp_path: Path) -> None:
    runs = [store(tmp_path, LABELS, [0, 1, said] * 4, seed=said) for said in (0, 2)]
    store(tmp_path, LABELS[:6], LABELS[:6], seed=5, complete=False)
    done = bench("export", "--all", "--format", "csv", "--results", tmp_path)
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.code == 0 and {row["status"] for row in rows} == {"complete", "incomplete"}
    for run in runs:
        metrics = json.loads((run / "summary.json").read_text("utf-8"))["metrics"]
        own = {row["metric"]: row for row in rows if row["run_id"] == run.name}
        for name, row in own.items():
            assert float(row["value"]) == metrics[name]
            ends = metrics.get(f"{name}_ci95") or ["", ""]
            assert [row["low"], row["high"]] == [str(end) for end in ends]
        assert {"accuracy", "f1_macro"} <= own.keys() <= metrics.keys()
    frame = toolkit.metrics(tmp_path)
    assert [*frame.columns] == [*rows[0]]
    assert [*frame["value"]] == [float(row["value"]) for row in rows]


def test_it_is_written_to_a_file(tmp_path: Path) -> None:
    store(tmp_path, LABELS, LABELS)
    out = tmp_path / "all.csv"
    results = ("--results", tmp_path)
    assert bench("export", "--all", "--format", "csv", "--out", out, *results).code == 0
    assert out.read_text() == bench("export", "--all", "--format", "csv", *results).out


def test_no_run_is_no_row(tmp_path: Path) -> None:
    assert bench("export", "--all", "--format", "csv", "--results", tmp_path).out == ""
    assert toolkit.metrics(tmp_path).empty


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "--all"),
        (("RUN", "--all"), "--all"),
        (("--all", "--format", "latex"), "--format"),
        (("--all", "--format", "csv", "--push", "a/b"), "--push"),
    ],
)
def test_what_one_table_cannot_be(options: tuple[str, ...], named: str) -> None:
    assert bench("export", *options).refuses(named)
