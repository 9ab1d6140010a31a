"""Further labels of a run's images, and the answers of people to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import store

from bench.contracts.measuring import NO_ANSWER
from bench.errors import UserError
from bench.store.columns import (
    COLUMNS_FILE,
    add_columns,
    column_values,
    read_answers,
    read_columns,
    read_columns_csv,
)
from bench.store.folder import read_manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return store(tmp_path / "results", [0, 1, 2], [0, 1, 1])


def test_columns_are_added_read_and_leave_the_run_as_it_is(run: Path, tmp_path: Path) -> None:
    file, manifest = tmp_path / "labels.csv", read_manifest(run)
    before = (run / "manifest.json").read_bytes()
    file.write_text('sample_id,shape,place\ns0000,"a, b",sea\ns0001,,land\n', "utf-8")
    add_columns(run, manifest, read_columns_csv(file))
    add_columns(run, manifest, {"third": {"s0002": "x"}})
    columns = read_columns(run, manifest)
    assert list(columns) == ["shape", "place", "third"]
    assert column_values(columns, "shape", manifest.samples).tolist() == ["a, b", "", ""]
    assert (run / "manifest.json").read_bytes() == before
    with pytest.raises(UserError, match=r"no column 'plaice'.* Did you mean 'place'"):
        column_values(columns, "plaice", manifest.samples)


def test_stale_and_changed_columns_are_refused(run: Path) -> None:
    manifest = read_manifest(run)
    add_columns(run, manifest, {"shape": {"s0000": "round"}})
    content = json.loads((run / COLUMNS_FILE).read_text())
    (run / COLUMNS_FILE).write_text(
        json.dumps({**content, "columns": {"shape": {"s0000": "flat"}}})
    )
    with pytest.raises(UserError, match="was changed: its hash differs"):
        read_columns(run, manifest)
    (run / COLUMNS_FILE).write_text(json.dumps({**content, "fingerprint": "0" * 64}))
    with pytest.raises(UserError, match="stale: its labels are for other data"):
        read_columns(run, manifest)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,shape\ns0000,a\n", "columns sample_id"),
        ("sample_id\ns0000\n", "must have a column besides"),
        ("sample_id,shape\ns0000,a\ns0000,b\n", "'s0000' 2 times"),
        ("sample_id,shape\ns0000,a,b\n", "labels.csv:2: 3 columns, but the first line names 2"),
        ("sample_id,shape\nother,a\n", "has no image 'other'"),
        ("sample_id,shape\ns0000,\n", "has no label"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    run: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=problem):
        add_columns(run, read_manifest(run), read_columns_csv(tmp_path / "labels.csv"))


def test_answers_of_people_are_read_by_subject(run: Path, tmp_path: Path) -> None:
    file, manifest = tmp_path / "people.csv", read_manifest(run)
    file.write_text(
        "subject,sample_id,answer\nann,s0000,class 0\nann,s0002,\n"
        "bob,s0001,class 2\nbob,x,class 1\n"
    )
    answers = read_answers(file, manifest, manifest.samples)
    assert answers["ann"].tolist() == [0, NO_ANSWER, -1]
    assert np.array_equal(answers["bob"], [NO_ANSWER, 2, NO_ANSWER])
    for line, problem in (
        ("ann,s0000,class 7\n", "line 2: 'class 7' is not a class"),
        ("ann,s0000,class 0\nann,s0000,class 0\n", "line 3: subject 'ann' answers 's0000' twice"),
        ("ann,other,class 0\n", "no answer to any image"),
    ):
        file.write_text(f"subject,sample_id,answer\n{line}")
        with pytest.raises(UserError, match=problem):
            read_answers(file, manifest, manifest.samples)
