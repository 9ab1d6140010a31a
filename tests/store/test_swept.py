"""The audit's lines, and the order in which images are audited."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.refusals import warned
from helpers.runs import a_manifest

from bench.store.summary import AUDIT, read_swept

MANIFEST = a_manifest(["a", "b"])
LINE = {
    "sample_id": "a",
    "prediction": 1,
    "regret": 0.5,
    "evaluations": 40,
    "equivalents": 40.0,
    "seconds": 1.0,
}


def test_the_last_line_of_an_image_counts_and_damaged_ones_do_not(tmp_path: Path) -> None:
    lines = [LINE, {**LINE, "prediction": 2}, {**LINE, "sample_id": "b", "evaluations": -1}]
    (tmp_path / AUDIT.name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with warned("line 3"):
        swept = read_swept(tmp_path, MANIFEST)
    assert {name: line["prediction"] for name, line in swept.items()} == {"a": 2}


def test_a_failed_sweep_is_a_line_too(tmp_path: Path) -> None:
    failed = {**LINE, "prediction": None, "regret": None}
    (tmp_path / AUDIT.name).write_text(json.dumps(failed) + "\n")
    assert read_swept(tmp_path, MANIFEST)["a"]["prediction"] is None
