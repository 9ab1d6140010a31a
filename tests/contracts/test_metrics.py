"""A metric is declared once: its value, tests and columns follow from the registry."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import run

import pytest
from helpers.command import PATIENCE
from helpers.places import ROOT
from sklearn.metrics import fbeta_score

from bench.contracts.metrics import METRICS, difference_metric
from bench.errors import UserError

NEW = """
register(
    "f2_macro",
    words="macro F2",
    meaning="The mean F2 over classes: recall counts more than precision.",
    ratio=ClassRatio(hits=5, support=4, predicted=1),
    tested=True,
    column=True,
    hub=("f2", "F2, macro", {}),
)
"""
STORE = """
import json, sys
from pathlib import Path
from helpers.runs import store
for seed, said in enumerate(json.loads(sys.argv[1])):
    print(store(Path("runs"), [0, 0, 0, 1, 1, 2], said, seed=seed))
"""
LABELS, SAID = [0, 0, 0, 1, 1, 2], [[0, 0, 1, 1, 0, 2], [0, 1, 1, 1, 2, 2]]


def test_a_metric_with_its_column_is_one_file(tmp_path: Path) -> None:
    """In a copy of the toolkit, a declaration is added to the registry, and nothing else."""
    shutil.copytree(
        ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__")
    )
    registry = tmp_path / "bench" / "contracts" / "metrics.py"
    registry.write_text(registry.read_text("utf-8") + NEW, "utf-8")

    def python(*arguments: str) -> str:
        done = run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}"},
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    a, b = python("-c", STORE, json.dumps(SAID)).split()
    f2 = [fbeta_score(LABELS, said, beta=2, average="macro") for said in SAID]
    bench, results = ("-m", "bench"), ("--results", "runs")
    rows = json.loads(python(*bench, "leaderboard", *results, "--json"))
    assert [row["f2_macro"] for row in rows] == pytest.approx(f2)
    assert "f2_macro" in python(*bench, "leaderboard", *results, "--format", "csv").split("\n")[0]
    for form in ("markdown", "html"):
        board = python(*bench, "leaderboard", *results, "--format", form)
        assert "macro F2" in board and f"{f2[0]:.4f}" in board
    assert "macro F2, \\%" in python(*bench, "results", "export", a, "--format", "latex")
    assert "F2, macro" in python(*bench, "results", "export", a, "--format", "model-index")
    python(*bench, "report", *results, "--out", "page.html", "--images", "0")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "Macro F2, %" in page and f">{100 * f2[1]:.1f}</td>" in page
    compared = json.loads(python(*bench, "compare", a, b, "--metric", "f2_macro", "--json"))
    assert (compared["tested"]["a"], compared["tested"]["b"]) == pytest.approx(f2)


def test_boards_have_a_column_of_macro_f1() -> None:
    assert [metric.name for metric in METRICS.values() if metric.column] == [
        "f1_weighted",
        "f1_macro",
    ]


def test_a_metric_that_is_not_tested_is_refused() -> None:
    with pytest.raises(UserError, match=r"not tested in 'f1-macro'.* Did you mean 'f1_macro'"):
        difference_metric("f1-macro")
