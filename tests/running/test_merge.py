"""Shards are fair parts of a run; a merge takes what belongs together, and nothing else."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.runs import a_manifest, a_record

from bench.contracts.strategy import Linearise
from bench.inputs.subsets import Shard, select_subset
from bench.running import shards
from bench.running.shards import merge
from bench.stats.metrics.summarise import summarize
from bench.store.folder import read_manifest, read_records, shard_folder
from bench.store.formats.cells import (
    DRAWS,
    has_part_file,
    part_path,
    read_first_order,
    write_cells,
    write_first_order,
)
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import ShardPart
from bench.store.merging import Merge, plan_merge
from bench.store.questions import keep_question, read_questions
from bench.store.runs import StoredRun
from bench.store.summary import Ends
from bench.store.writing import RunFolder

LABELS = [0, 1, 2, 0, 1, 2, 0]
IDS = [f"s{i}" for i in range(len(LABELS))]
NONE = np.zeros(0, np.int64)


def store_shard(
    results: Path, index: int, count: int, decided: int | None = None, **changes: Any
) -> Path:
    """Store a shard with every `count`-th image, the first `decided` of them with a line."""
    places = list(range(index - 1, len(IDS), count))
    part = ShardPart(index=index, count=count, asked=len(IDS), places=places)
    answers, record = changes.pop("answers", {}), changes.pop("record", {})
    samples = [IDS[i] for i in places]
    manifest = a_manifest(samples, n_total=len(IDS), part=part.plain(), **changes)
    path = shard_folder(results / manifest.run_id, index, count)
    with RunFolder(path, manifest) as folder:
        for i in places[:decided]:
            answer = answers.get(i, LABELS[i])
            folder.append(a_record(IDS[i], LABELS[i], answer, **record), None, NONE)
    return path


def test_lines_stand_in_the_order_of_the_split(tmp_path: Path) -> None:
    for index in (3, 1, 2):
        path = store_shard(tmp_path, index, 3)
    finished = merge([path.parents[1].name], str(tmp_path))
    assert finished.folder == path.parents[1]
    assert list(read_records(finished.folder)) == read_manifest(finished.folder).samples == IDS
    assert finished.summary.metrics.accuracy == 1 and finished.summary.dataset.n_samples == 7


def test_the_summary_is_that_of_the_merged_lines(tmp_path: Path) -> None:
    """Also where one shard alone has groups, candidates or failures."""
    facts = {"group": "a", "in_candidates": True}
    store_shard(tmp_path, 1, 2, answers={2: None, 4: 0}, record=facts)
    run = store_shard(tmp_path, 2, 2, answers={3: 2}).parents[1]
    finished = merge([run.name], str(tmp_path))
    decided = read_decisions(run, finished.manifest, top=True)
    wanted = summarize(finished.manifest, decided, None, None)
    assert finished.summary.metrics == wanted.metrics and finished.summary.failed_samples == 1
    assert wanted.metrics.worst_group and wanted.metrics.metric("candidate_recall") == 4 / 7


def test_what_ended_the_images_is_merged(tmp_path: Path) -> None:
    """Also where one shard alone says it, as a strategy of an earlier version."""
    store_shard(tmp_path, 1, 2, record={"decided_by": "bound"})
    run = store_shard(tmp_path, 2, 2).parents[1]
    assert merge([run.name], str(tmp_path)).summary.decided_by == Ends(bound=4)


def test_warnings_of_every_shard_are_kept(tmp_path: Path) -> None:
    """The first shard is the largest; a merge that is repeated says the same."""
    warnings = ("one", "two"), ("three", "one"), None
    for index, texts in enumerate(warnings, 1):
        run = store_shard(tmp_path, index, 3, warnings=texts and list(texts)).parents[1]
    for _ in range(2):
        assert merge([run.name], str(tmp_path)).manifest.warnings == ["one", "three", "two"]
        assert read_manifest(run).warnings == ["one", "three", "two"]


def test_shards_from_several_folders_and_cut_otherwise(tmp_path: Path) -> None:
    parts = [store_shard(tmp_path / "a", 1, 2)]
    parts += [store_shard(tmp_path / "b", index, 4) for index in (2, 4)]
    finished = merge([str(p) for p in parts], str(tmp_path / "all"))
    assert finished.folder.parent == tmp_path / "all"
    assert list(read_records(finished.folder)) == IDS


def test_first_order_errors_are_merged_too(tmp_path: Path) -> None:
    parts = [store_shard(tmp_path, index, 2) for index in (1, 2)]
    mixture = np.full(3, 1 / 3)
    for number, path in enumerate(parts):
        values = np.full((3, 2), number, np.float32)
        asked = Linearise(np.arange(2), mixture)
        write_cells(path / "errors", IDS[number], [], np.arange(2))
        write_first_order(path / "first_order", IDS[number], [(asked, values)], np.arange(2))
    folder = merge([parts[0].parents[1].name], str(tmp_path)).folder
    for number in (0, 1):
        assert has_part_file(folder / "errors", IDS[number])
        [(weights, values)] = read_first_order(folder / "first_order", IDS[number], (3, 2))
        np.testing.assert_array_equal(values, number)
        np.testing.assert_array_equal(weights, mixture)


FOREIGN: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a part": (lambda run, data: move_and_link(part_path(run / "errors", IDS[0]), data), "parquet"),
    "the folder": (lambda run, data: move_and_link(run / "errors", data), "errors"),
    "draws": (lambda run, data: (run / DRAWS).symlink_to(data / "mine"), DRAWS),
    "a pipe": (lambda run, data: os.mkfifo(run / DRAWS), DRAWS),
}


def move_and_link(path: Path, data: Path) -> None:
    path.rename(data / path.name)
    path.symlink_to(data / path.name)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_merge_takes_regular_files_of_a_shard_alone(tmp_path: Path, name: str) -> None:
    link, message = FOREIGN[name]
    run, data = store_shard(tmp_path / "r", 1, 1), tmp_path / "data"
    write_cells(run / "errors", IDS[0], [], np.arange(2))
    data.mkdir()
    (data / "mine").write_text("mine")
    link(run, data)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with refused(message, "copy"):
        merge([str(run)], str(tmp_path / "all"))
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_what_is_merged_is_a_copy(tmp_path: Path) -> None:
    run = store_shard(tmp_path / "r", 1, 1)
    write_cells(run / "errors", IDS[0], [], np.arange(2))
    folder = merge([str(run)], str(tmp_path / "all")).folder
    part = part_path(folder / "errors", IDS[0])
    content = part.read_bytes()
    with part_path(run / "errors", IDS[0]).open("r+b") as file:  # as a copy in place changes it
        file.write(b"changed")
    assert part.read_bytes() == content


def test_a_failed_image_gives_way_to_a_decided_one(tmp_path: Path) -> None:
    failed = store_shard(tmp_path / "a", 1, 1, answers={3: None})
    good = store_shard(tmp_path / "b", 1, 2)
    other = store_shard(tmp_path / "b", 2, 2)
    for order in ([failed, good, other], [good, other, failed]):
        folder = merge([str(p) for p in order], str(tmp_path / order[0].parents[2].name)).folder
        assert read_records(folder)[IDS[3]]["error"] is None


def test_a_partial_merge_is_marked_and_made_whole_later(tmp_path: Path) -> None:
    run = store_shard(tmp_path, 1, 3).parents[1]
    store_shard(tmp_path, 2, 3, decided=1)
    merging = ("results", "merge", run.name, "--results", tmp_path)
    shown = bench("show", run.name, "--results", tmp_path)
    assert shown.refuses("in shards")
    ended = bench(*merging)
    assert ended.refuses("4 of 7")
    assert "shard 3/3 is absent" in ended.err and "has decided 1 of 2" in ended.err
    done = bench(*merging, "--partial", "--json")
    assert done.code == 0 and done.json["status"] == "incomplete"
    assert not (run / "summary.json").exists() and read_manifest(run).asked == 7
    listed = json.loads(bench("runs", "--results", tmp_path, "--json").out)
    rows = {r["shard"]: (r["status"], r["n_samples"], r["n_asked"]) for r in listed}
    assert rows[None] == ("incomplete", 4, 7) and rows["2/3"] == ("incomplete", 1, 2)
    assert "4 of 7" in bench("show", run).out
    store_shard(tmp_path, 2, 3)
    store_shard(tmp_path, 3, 3)
    assert bench(*merging, "--json").json["status"] == "complete"
    assert read_manifest(run).asked is None
    assert read_manifest(run).samples == list(read_records(run)) == IDS


def test_a_run_that_was_killed_in_the_middle_of_a_line_is_merged_at_once(tmp_path: Path) -> None:
    run = store_shard(tmp_path, 1, 2).parents[1]
    store_whole(run, [0, 1])
    journal = run / "samples.jsonl"
    journal.write_bytes(journal.read_bytes()[:-5])
    store_shard(tmp_path, 2, 2)
    assert list(read_records(merge([run.name], str(tmp_path)).folder)) == IDS


def test_a_run_that_lacks_nothing_keeps_its_records_and_what_stands_on_them(tmp_path: Path) -> None:
    run = store_shard(tmp_path, 1, 1).parents[1]
    store_whole(run, [6, 5, 4, 3, 2, 1, 0])
    question = keep_question(run, read_manifest(run), "width 0.5", 0)
    before = (run / "samples.jsonl").read_bytes()
    for _ in range(2):
        merge([run.name], str(tmp_path))
        assert (run / "samples.jsonl").read_bytes() == before
        assert read_questions(run, read_manifest(run)) == [question]


@pytest.mark.parametrize("before", [[], [6]])
def test_what_is_decided_while_shards_are_read_is_not_lost(
    before: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store_shard(tmp_path, 1, 3).parents[1]
    if before:
        store_whole(run, before)

    def plan(parts: list[StoredRun]) -> Merge:
        planned = plan_merge(parts)
        store_whole(run, [1])
        return planned

    monkeypatch.setattr(shards, "plan_merge", plan)
    with refused(run.name):
        merge([run.name], str(tmp_path), partial=True)
    assert [*read_records(run)] == [IDS[place] for place in (*before, 1)]


def store_whole(run: Path, places: list[int]) -> None:
    """Decide some images of the whole run."""
    with RunFolder(run, a_manifest(IDS, n_total=len(IDS))) as folder:
        for place in places:
            folder.append(a_record(IDS[place], LABELS[place], LABELS[place]), None, NONE)


def refused_line(tmp_path: Path, *runs: object) -> str:
    """Return the one line with which a merge is refused; nothing is written."""
    done = bench("results", "merge", *runs, "--results", tmp_path / "into")
    assert done.code == 2 and len(done.err.splitlines()) == 1, done.err
    assert not (tmp_path / "into").exists()
    return done.err


def test_nothing_to_merge(tmp_path: Path) -> None:
    assert "Nothing to merge" in refused_line(tmp_path)
    assert "There is no run 'absent'" in refused_line(tmp_path, "absent")
    assert "There is no run" in refused_line(tmp_path, "a\0b")
    (tmp_path / "empty" / "shards").mkdir(parents=True)
    assert "There is no run" in refused_line(tmp_path, tmp_path / "empty")
    undecided = [store_shard(tmp_path, index, 2, decided=0) for index in (1, 2)]
    assert "no image is decided yet" in refused_line(tmp_path, *undecided)


def test_shards_of_two_runs(tmp_path: Path) -> None:
    parts = store_shard(tmp_path, 1, 2), store_shard(tmp_path, 2, 2, seed=7)
    said = refused_line(tmp_path, *parts)
    assert "parts of different runs" in said and "seed: 0 and 7" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["class 2", "class 1", "class 0"]},
        {"classes": ["class 0", "class 1", "other"]},
        {"prompts": [["a class 1", 1], ["a class 0", 0], ["a class 2", 2]]},
        {"prompts": [["a class 0", 0], ["a class 1", 1]]},
    ],
)
def test_shards_with_other_classes_or_prompts(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Also in another order, and under the same identity: records hold numbers of classes."""
    store_shard(tmp_path, 1, 2, prompts_hash="p")
    path = store_shard(tmp_path, 2, 2, prompts_hash="p", **changes)
    with refused(next(iter(changes)), "shard 1/2"):
        merge([path.parents[1].name], str(tmp_path))
    assert not (path.parents[1] / "manifest.json").exists()


@pytest.mark.parametrize("answer", [1, 2])
def test_two_answers_for_one_image(tmp_path: Path, answer: int) -> None:
    parts = (
        store_shard(tmp_path / "a", 1, 1),
        store_shard(tmp_path / "b", 1, 2, answers={6: answer}),
    )
    said = refused_line(tmp_path, *parts)
    assert "different predictions for 's6': 'class 0'" in said and f"'class {answer}'" in said


def test_a_merge_draws_the_pictures_that_its_images_allow(tmp_path: Path) -> None:
    for index in (1, 2):
        path = store_shard(tmp_path, index, 2)
    done = bench("results", "merge", path.parents[1].name, "--results", tmp_path)
    assert (path.parents[1] / "confusion.png").is_file()
    assert "No picture of examples: the images are not on this machine" in done.err


@pytest.mark.parametrize("limit", [None, 60])
def test_shards_are_a_partition_and_balanced(limit: int | None) -> None:
    labels = [c for c in range(5) for _ in range(40)]
    ids = [f"s{i}" for i in range(200)]
    label_of = dict(zip(ids, labels, strict=True))
    parts = [select_subset(ids, labels, limit, Shard(i, 4)) for i in range(1, 5)]
    assert sorted(i for part in parts for i in part) == sorted(select_subset(ids, labels, limit))
    for part in parts:
        assert len(part) == (limit or 200) / 4
        assert part == [i for i in ids if i in part]  # in the order of the data
        counts = Counter(label_of[i] for i in part)
        assert all(abs(counts[c] - len(part) / 5) <= 2 for c in range(5))
        nested = select_subset(ids, labels, None, Shard(parts.index(part) + 1, 4))
        assert set(part) <= set(nested)


@pytest.mark.parametrize("wrong", ["17/16", "0/4", "x", "3", "-1/4", "1/4/2", "1/0", ""])
def test_what_is_no_shard(wrong: str, tmp_path: Path) -> None:
    done = bench("run", "digits", f"--shard={wrong}", "--results", tmp_path)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "--shard" in done.err and not list(tmp_path.iterdir())
