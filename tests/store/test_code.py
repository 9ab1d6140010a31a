"""A run says which code scored it, and a reader is told where it changed in between."""

import warnings
from pathlib import Path

import numpy as np
from helpers.refusals import warned
from helpers.runs import a_manifest, a_record, store

from bench.reports.comparisons import compare
from bench.running.shards import merge
from bench.store.folder import read_manifest
from bench.store.formats.documents import Manifest, changed_code, mixed_code_warning, with_code_of
from bench.store.writing import RunFolder


def made_by(**code: str) -> Manifest:
    return a_manifest(["a"], environment={"code": code})


OLD, NEW = made_by(bench="1", flowers="7"), made_by(bench="2", flowers="7")
UNKNOWN = a_manifest(["a"])


def test_only_what_two_runs_know_and_differ_in_has_changed() -> None:
    assert changed_code([OLD, NEW]) == ["bench"]
    assert changed_code([OLD, OLD]) == changed_code([OLD, UNKNOWN]) == []
    replaced = made_by(bench="1", birds="9")  # two runs may have different plugins, but not one
    assert changed_code([OLD, replaced]) == changed_code([OLD, UNKNOWN], of_one_run=True) == []
    assert changed_code([OLD, replaced], of_one_run=True) == ["birds", "flowers"]


def test_code_that_was_mixed_stays_mixed() -> None:
    mixed = with_code_of(NEW, [OLD])
    assert mixed.environment["code"] == {"bench": "1 + 2", "flowers": "7"}
    assert with_code_of(NEW, [mixed]) == mixed
    assert changed_code([mixed, NEW]) == ["bench"]
    assert with_code_of(UNKNOWN, [UNKNOWN]) == UNKNOWN
    assert mixed_code_warning([OLD, OLD], "differs") is None


def test_a_run_that_is_resumed_by_other_code_says_so_and_records_both(tmp_path: Path) -> None:
    old = {"code": {"bench": "1"}}
    folder = store(tmp_path, [0, 1, 2], [0, 1, 2], environment=old)
    manifest = read_manifest(folder)
    with RunFolder(folder, manifest) as opened:
        assert opened.mixed_code is None
    newer = manifest.model_copy(update={"environment": {"code": {"bench": "2"}}})
    with RunFolder(folder, newer) as opened:
        assert opened.mixed_code is not None
        assert "code of bench has changed since this run began" in opened.mixed_code
    assert read_manifest(folder).environment["code"] == {"bench": "1 + 2"}
    with RunFolder(folder, newer, fresh=True) as opened:
        assert opened.mixed_code is None


def test_nothing_is_said_where_nothing_is_decided_yet(tmp_path: Path) -> None:
    with RunFolder(tmp_path / OLD.run_id, OLD):
        pass
    with RunFolder(tmp_path / OLD.run_id, NEW) as opened:
        assert opened.mixed_code is None


def test_a_comparison_says_that_the_code_changed(tmp_path: Path) -> None:
    runs = [
        store(tmp_path, [0, 1, 2], [0, 1, 1], seed=seed, environment={"code": {"bench": code}})
        for seed, code in enumerate("112")
    ]
    said = "The code of bench changed between the runs."
    assert said not in compare(runs[0], runs[1]).warnings
    assert said in compare(runs[0], runs[2]).warnings


def test_parts_of_different_code_are_merged_with_a_warning(tmp_path: Path) -> None:
    ids = [f"s{n}" for n in range(4)]
    for index in (1, 2):
        part = {"index": index, "count": 2, "asked": 4, "places": [index - 1, index + 1]}
        described = a_manifest(
            [ids[index - 1], ids[index + 1]],
            n_total=4,
            part=part,
            environment={"code": {"bench": str(index)}},
        )
        store_part(tmp_path, described)
    with warned("code of bench"):
        merged = merge([described.run_id], str(tmp_path))
    assert merged.manifest.environment["code"] == {"bench": "1 + 2"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_manifest(merged.folder).samples == ids


def store_part(results: Path, manifest: Manifest) -> None:
    assert manifest.part is not None
    folder = results / manifest.run_id / "shards" / f"{manifest.part.index}-of-2"
    with RunFolder(folder, manifest) as opened:
        for name in manifest.samples:
            opened.append(a_record(name, 0, 0), None, np.zeros(0, np.int64))
