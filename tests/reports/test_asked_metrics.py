"""A metric on request on boards and in the report, which may be of one further label alone."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.refusals import refused, warned
from helpers.runs import store
from helpers.scores import LABELS, some_scores, stored
from sklearn.metrics import roc_auc_score

from bench.reports.facts import percent_text
from bench.reports.html import format_tables
from bench.reports.leaderboard.board import board_tables
from bench.reports.leaderboard.ranking import leaderboard, with_metric
from bench.reports.leaderboard.rows import to_csv
from bench.reports.page.page import write_report
from bench.reports.run_view import read_decided_run
from bench.store.columns import add_columns
from bench.store.folder import read_manifest
from bench.store.formats.identity import digest
from bench.store.locking import locked
from bench.store.runs import read_run
from bench.store.summary import SUMMARY, Summary

PLACES = np.array(["sea", "land", ""])[np.arange(45) // 5 % 3]  # five images of each in turn


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = stored(tmp_path, some_scores(), backbone="good")
    manifest = read_manifest(path)
    add_columns(
        path, manifest, {"place": dict(zip(manifest.samples, PLACES.tolist(), strict=True))}
    )
    return path


def area(rows: np.ndarray) -> float:
    scores = some_scores()
    relative = (scores.mean(axis=1)[:, None] - scores)[rows]
    return float(np.mean([roc_auc_score(LABELS[rows] == c, relative[:, c]) for c in range(3)]))


def test_a_board_has_a_column_of_the_metric(run: Path) -> None:
    """In every format; a run that lacks what it needs has none, and a warning says why."""
    store(run.parent, LABELS.tolist(), LABELS.tolist(), backbone="poor")
    with warned("d-poor-full-", "AUROC"):
        rows = with_metric(leaderboard(run.parent), "auroc", {"across": "difference"})
    known = area(np.ones(45, dtype=bool))
    assert {row.backbone: row.metric("auroc") for row in rows} == {
        "good": pytest.approx(known),
        "poor": None,
    }
    assert rows[0].plain()["auroc"] is None and "auroc" in to_csv(rows).splitlines()[0]
    for text in (
        format_tables(board_tables(rows, metric="auroc"), form) for form in ("markdown", "html")
    ):
        assert "AUROC" in text and f"{100 * known:.1f}" in text
    assert "AUROC" not in format_tables(board_tables(leaderboard(run.parent)), "markdown")
    asked = with_metric(leaderboard(run.parent), "precision_macro", {})
    assert "macro precision" in format_tables(
        board_tables(asked, metric="precision_macro"), "markdown"
    )


def test_a_report_has_the_metric_and_is_of_one_label(run: Path) -> None:
    out, at_sea = run.parent / "r.html", PLACES == "sea"
    written = write_report([run], out, metric=("auroc", {}), label=("place", "sea"), most_images=0)
    page = re.sub(r"\s+", " ", out.read_text())
    shown = f'<dt>AUROC, %</dt><dd>{100 * area(at_sea):.1f} <span class="whole">('
    assert not written.notes and shown in page
    assert re.search(r"<dt>Images</dt><dd>15 of 45<small>", page) and "place=sea" in page
    with refused("place=see", "'sea'"):
        write_report([run], out, label=("place", "see"))
    lacking = write_report([run], out, metric=("shape_bias", {}), most_images=0)
    assert [("no shape bias" in reason) for _, reason in lacking.notes] == [True]
    ended = bench("report", run, "--out", out, "--only", "place")
    assert ended.refuses("COLUMN=VALUE")


def test_a_worst_group_of_an_early_summary_gets_the_interval_of_the_lowest(tmp_path: Path) -> None:
    """And `show` prints it beside that of the group alone; single groups have theirs alone."""
    labels, groups = [0, 1, 2] * 20, ["a", "b", "c", "d"] * 15
    path = store(tmp_path, labels, [0] * 30 + labels[30:], groups=groups)
    now = read_decided_run(read_run(path)).summary.metrics.worst_group
    assert now is not None and now.groups == 4 and now.lowest_ci95 != now.accuracy_ci95
    manifest, summary = read_manifest(path), json.loads((path / "summary.json").read_text("utf-8"))
    for name in ("groups", "lowest_ci95"):
        del summary["metrics"]["worst_group"][name]
    with locked(path) as folder:
        SUMMARY.write(folder, digest(manifest.identity), Summary.model_validate(summary))
    assert read_decided_run(read_run(path)).summary.metrics.worst_group == now
    out = " ".join(bench("show", path, "--statistics").out.split())
    alone = percent_text(now.accuracy, now.accuracy_ci95)
    assert percent_text(now.accuracy, now.lowest_ci95) in out
    assert f"{now.group} (15), the lowest of 4; alone {alone}" in out
    assert "each interval is for one group" in out
