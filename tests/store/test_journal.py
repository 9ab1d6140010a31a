"""The journal of a run and its audit: lines that are read, and those that are damaged."""

import json
import shutil
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.refusals import warned
from helpers.runs import a_manifest, a_record

from bench.contracts.dataset import Sample, Shortlisted
from bench.contracts.decision import Decided
from bench.contracts.strategy import Outcome
from bench.store.formats.journal import (
    JOURNAL,
    Journal,
    Record,
    is_record,
    make_record,
    prefix_hash,
    read_lines,
    read_table,
)
from bench.store.summary import AUDIT, read_swept


def write(folder: Path, *records: Record) -> Path:
    path = folder / JOURNAL
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8"
    )
    return path


def ids(table: object) -> list[str]:
    return list(table["sample_id"].to_pylist())  # type: ignore[index]


def test_a_torn_end_is_cut_before_the_next_line(tmp_path: Path) -> None:
    path = write(tmp_path, a_record("a", 0, 0))
    with path.open("ab") as file:
        file.write(b'{"sample_id": "b", "la' + b"x" * 200_000)  # longer than the block searched
    journal = Journal(path)
    journal.append({"sample_id": "c"})
    journal.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [record["sample_id"] for _, _, record in read_lines(path)] == ["a", "c"]


def test_offsets_and_lengths_find_each_line(tmp_path: Path) -> None:
    path = write(tmp_path, a_record("ä", 0, 0), a_record("b", 1, 1))
    content = path.read_bytes()
    for start, length, record in read_lines(path):
        assert json.loads(content[start : start + length]) == record


def test_an_image_that_was_scored_again_has_its_last_line(tmp_path: Path) -> None:
    write(tmp_path, a_record("a", 0, None), a_record("b", 1, 1), a_record("a", 0, 0))
    table = read_table(tmp_path, 3)
    assert ids(table) == ["b", "a"] and table["prediction"].to_pylist() == [1, 0]


def test_the_table_of_a_damaged_journal_is_that_of_its_good_lines(tmp_path: Path) -> None:
    path = write(tmp_path, a_record("a", 0, 0), a_record("b", 1, 2))
    whole = read_table(tmp_path, 3, top=True)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"sample_id": "c", "label": "one"}\n')
    with warned("line 3"):
        assert read_table(tmp_path, 3, top=True).equals(whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"label": 3},
        {"prediction": 7},
        {"evaluations": -1},
        {"confidence": 1.5},
        {"rank": 0},
        {"decided_by": "chance"},
        {"top": [[9, 0.1, 5]]},
        {"top": [[0, 0.1]]},
        {"top": [[0, 0.1], [1, 0.2, 5, 0]]},
        {"top": [[0.5, 0.1, 5]]},
        {"top": [[-1, 0.1, 5]]},
    ],
)
def test_both_readings_refuse_the_same_lines(changes: dict[str, object], tmp_path: Path) -> None:
    wrong: Any = {**a_record("b", 1, 1), **changes}
    write(tmp_path, a_record("a", 0, 0), wrong)
    assert not is_record(wrong, 3)
    with warned("line 2"):
        assert ids(read_table(tmp_path, 3, top=True)) == ["a"]


def test_lines_are_synced_on_closing_and_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("bench.store.formats.journal.os.fsync", synced.append)
    journal, times = Journal(tmp_path / "samples.jsonl"), []
    for seconds in (9.0, 0.0):
        monkeypatch.setattr("bench.store.formats.journal.SYNC_SECONDS", seconds)
        journal.append({"sample_id": "a"})
        times.append(len(synced))
    journal.append({"sample_id": "b"})
    monkeypatch.setattr("bench.store.formats.journal.SYNC_SECONDS", 9.0)
    journal.append({"sample_id": "c"})
    journal.close()
    assert times == [0, 1] and len(synced) == 3


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_line_that_nobody_would_find_is_refused(how: str, tmp_path: Path) -> None:
    """As that of a run whose folder was deleted while it is scored, for hours perhaps."""
    folder = tmp_path / "run"
    folder.mkdir()
    journal = Journal(folder / JOURNAL)
    journal.append({"sample_id": "a"})
    folder.rename(tmp_path / "elsewhere")
    if how == "deleted":
        shutil.rmtree(tmp_path / "elsewhere")
    elif how == "replaced":
        folder.mkdir()
        (folder / JOURNAL).touch()
    with pytest.raises(FileNotFoundError):
        journal.append({"sample_id": "b"})
    journal.close()
    assert [path.read_text() for path in folder.glob(JOURNAL)] == [""] * (how == "replaced")


def test_an_absent_journal_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / JOURNAL)) == [] and ids(read_table(tmp_path, 3)) == []


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"label": "1"}, False),
        ({"prediction": None}, False),  # neither decided nor failed
        ({"prediction": None, "error": "broken", "top": []}, True),
        ({"later": "field"}, True),
    ],
)
def test_every_field_is_there_and_in_its_range(changes: dict[str, Any], good: bool) -> None:
    assert is_record({**a_record("a", 0, 1), **changes}, 3) == good


@pytest.mark.parametrize("value", [None, [], "text", {}, {"sample_id": "a"}])
def test_what_is_no_record(value: object) -> None:
    assert not is_record(value, 3)


def test_a_decision_becomes_a_record() -> None:
    decided = Decided(Sample("a", 2, {}, group="g", shortlisted=Shortlisted((0, 1))))
    decided.evaluations, decided.equivalents = 12, 12.3456
    ranking, scores = np.array([1, 0, 2]), np.array([0.2, 0.1, np.nan])
    decided.outcome = Outcome(ranking, scores, np.array([4, 4, 0]), 0.1, np.inf, 0.9)
    record = make_record(decided, 0.123456)
    assert is_record(record, 3)
    assert (record["prediction"], record["score"], record["margin_stderr"]) == (1, 0.1, None)
    assert record["top"] == [(1, 0.1, 4), (0, 0.2, 4), (2, None, 0)]
    assert record["seconds"] == 0.1235 and record["equivalents"] == 12.35
    assert record["in_candidates"] is False and record["group"] == "g"


def test_an_image_that_failed_has_its_reason_and_no_decision() -> None:
    decided = Decided(Sample("a", 0, {}))
    decided.error = "broken"
    record = make_record(decided, 0.0)
    assert is_record(record, 1) and record["prediction"] is record["score"] is None
    assert record["error"] == "broken" and record["top"] == []


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


def test_the_hash_of_a_journal_is_that_of_its_complete_lines(tmp_path: Path) -> None:
    assert prefix_hash(tmp_path) == (0, sha256().hexdigest())
    (tmp_path / JOURNAL).write_bytes(b"one\ntwo\nthr")
    assert prefix_hash(tmp_path) == (8, sha256(b"one\ntwo\n").hexdigest())
    assert prefix_hash(tmp_path, 4) == (4, sha256(b"one\n").hexdigest())
