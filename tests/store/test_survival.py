"""Kills, full and read-only disks, damaged files, two processes: no finished work is lost.

Real kills and real limits of the kernel; `pytest -m slow` has them of whole commands.
"""

import json
import os
import random
import signal
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.interrupted import Running, forked
from helpers.refusals import warned
from helpers.runs import a_record, store
from helpers.scoring import LIMIT, command, same, timeless
from helpers.stopped import REFUSED, SAMPLES, interrupted_after, limited_after, write

from bench.machine.cache import cache_dir
from bench.store.folder import read_manifest, read_records
from bench.store.formats.decisions import read_decisions
from bench.store.formats.journal import JOURNAL, MAX_LINE_BYTES, read_lines
from bench.store.writing import RunFolder


def check_resumed(arguments: list[str], whole: Path, results: Path) -> Path:
    done = bench(*arguments, "--json")
    assert done.code == 0, done.err
    run = results / whole.name
    assert same(timeless(run), {i: r for i, r in timeless(whole).items() if i in timeless(run)})
    assert len((run / "samples.jsonl").read_text().splitlines()) == len(timeless(run)) == LIMIT
    assert done.json["metrics"] == json.loads((whole / "summary.json").read_text())["metrics"]
    return run


def test_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for images in (3, 4):
        assert limited_after(run, images, 150, "SIGXFSZ") == -signal.SIGXFSZ
        assert not (run / JOURNAL).read_bytes().endswith(b"\n")  # half a line is there
    write(run)
    assert sorted(read_records(run)) == SAMPLES
    assert len((run / JOURNAL).read_text().splitlines()) == len(SAMPLES)


def test_a_full_disk(tmp_path: Path) -> None:
    """First in the middle of a line, then in that of an image's recorded errors."""
    run = tmp_path / "run"
    assert limited_after(run, 3, 150, "refuse") == REFUSED
    assert (run / JOURNAL).read_bytes().endswith(b"\n") and len(read_records(run)) == 3
    assert limited_after(run, 1, -100, "refuse", errors=True) == REFUSED
    assert len(list(read_lines(run / JOURNAL))) == 4  # one of the three again, with its errors
    write(run, errors=True)
    assert sorted(read_records(run)) == SAMPLES
    assert len(list((run / "errors").glob("*.parquet"))) == len(SAMPLES)


@pytest.mark.long
def test_a_clock_that_goes_back_changes_nothing(whole: Path, tmp_path: Path) -> None:
    """What was written seems to be of the year 2096: the run, and what the cache keeps."""
    arguments = command("tiny-digits", tmp_path, "--limit", LIMIT)
    with interrupted_after(3):
        assert bench(*arguments).code == 130
    manifest = tmp_path / whole.name / "manifest.json"
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**written, "created": "2096-10-02T07:06:40+00:00"}))
    for path in [*tmp_path.rglob("*"), *cache_dir().rglob("*")]:
        os.utime(path, (4e9, 4e9))
    run = check_resumed(arguments, whole, tmp_path)
    assert json.loads(manifest.read_text())["created"].startswith("2096")
    for reading in (["show", run], ["runs"], ["leaderboard"], ["report", run]):
        more = ["--out", tmp_path / "page.html"] if reading[0] == "report" else []
        done = bench(*reading, *more, "--results", tmp_path)
        assert done.code == 0 and not done.err.count("Warning"), done.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 kB, where this user may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", disk])
    if made.returncode:
        pytest.skip("no right to mount a disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_full_then_larger_then_read_only(whole: Path, small_disk: Path) -> None:
    arguments = command("tiny-digits", small_disk, "--limit", LIMIT, "--save-errors")
    full = bench(*arguments)
    assert full.refuses("No space left on device", code=1)
    kept = timeless(small_disk / whole.name)
    assert 0 < len(kept) < LIMIT
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    run = check_resumed(arguments, whole, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    again = bench(*arguments)
    assert again.code == 0 and "This run is complete" in again.out
    for reading in (["show", run, "--statistics"], ["leaderboard", "--results", small_disk]):
        assert bench(*reading).code == 0
    more = bench(*command("tiny-digits", small_disk, "--limit", LIMIT + 1))
    assert more.refuses("cannot be written")


def test_a_question_is_answered_on_a_read_only_disk(small_disk: Path, tmp_path: Path) -> None:
    """Its answer is printed; where it is stored already there is nothing to warn of."""
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    command = ("run", "digits", "--backbone", "nearest-mean", "--results", small_disk, "--json")
    assert bench(*command).code == 0
    kept = bench(*command, "--until", "width 0.3 on this split").json["answer"]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    again = bench(*command, "--until", "width 0.3 on this split")
    assert again.code == 0 and again.json["answer"] == kept and "Warning" not in again.err
    other = bench(*command, "--until", "width 0.2")
    assert other.code == 0 and other.json["answer"]["verdict"] == "narrow"
    assert other.json["answer"]["post_hoc"]
    assert "The answer to --until is not kept" in other.err and "Traceback" not in other.err
    [run] = small_disk.glob("digits-*")
    file = tmp_path / "column.csv"
    file.write_text(f"sample_id,shape\n{read_manifest(run).samples[0]},round")
    for refused in (
        ("results", "columns", run, file),
        ("learn", run, "calibration"),
        (*command, "--note", "x"),
    ):
        done = bench(*refused)
        assert done.refuses("cannot be written", code=1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o555)
    done = bench(*command("tiny-digits", tmp_path / "mine", "--limit", 2))
    assert done.refuses("cannot be written")


def test_results_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench(*command("tiny-digits", tmp_path / "file", "--limit", 2))
    assert done.refuses("cannot be written")


def test_two_processes_on_one_run(copied: Path) -> None:
    """The second says so and stops, and the first continues."""
    manifest = read_manifest(copied)
    with RunFolder(copied, manifest) as folder:
        second = bench(*command("tiny-digits", copied.parent, "--limit", LIMIT + 1))
        assert second.refuses("Another process")
        folder.append(a_record(manifest.samples[0], 0, 0), None, np.zeros(0, np.int64))
    assert len(read_records(copied)) == LIMIT


def test_a_line_edited_by_hand_is_named_and_asked_again(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1, 2, 0], [0, 1, 2, 1])
    manifest, journal = read_manifest(path), path / "samples.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], lines[1].replace("label", "lable"), *lines[2:]]) + "\n")
    with warned("line 2", kind=UserWarning):
        assert read_decisions(path, manifest).sample_ids.to_pylist() == ["s0000", "s0002", "s0003"]
    with pytest.warns(UserWarning), RunFolder(path, manifest) as folder:
        assert folder.outstanding(folder.manifest.samples, save_errors=False) == ["s0001"]
    shown = bench("show", path)
    assert shown.code == 0 and "line 2 is damaged" in shown.err


def test_a_part_of_the_errors_that_a_power_cut_tore_is_made_again(copied: Path) -> None:
    part = sorted((copied / "errors").glob("*.parquet"))[0]
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    with RunFolder(copied, read_manifest(copied)) as folder:
        assert len(folder.outstanding(folder.manifest.samples, save_errors=True)) == 1
        assert folder.outstanding(folder.manifest.samples, save_errors=False) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"identity": {}, "format": 99}', "newer"),
        ('{"identity": ', "`bench run`"),
        ("[]", "manifest"),
    ],
)
def test_a_manifest_that_cannot_be_used_stops_before_anything_is_lost(
    content: str, words: str, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / whole.name
    run.mkdir()
    journal = (whole / "samples.jsonl").read_bytes()
    (run / "samples.jsonl").write_bytes(journal)
    (run / "manifest.json").write_text(content)
    arguments = command("tiny-digits", tmp_path, "--limit", LIMIT)
    for done in (bench("show", run), bench(*arguments)):
        assert done.refuses(words)
    assert (run / "samples.jsonl").read_bytes() == journal
    (run / "manifest.json").unlink()  # as the message says; the newer version is another matter
    done = bench(*arguments, "--json")
    assert done.code == 0 and (run / "samples.jsonl").read_bytes() == journal  # none scored again


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    """Of whole commands, in processes of their own."""
    many = 150
    wanted = forked(*command("tiny-digits", tmp_path, "--limit", many, "--json"))
    assert wanted.code == 0
    whole = Path(wanted.json["results_dir"])
    arguments = command("tiny-digits", tmp_path / "killed", "--limit", many)
    chance = random.Random(20)
    journal = tmp_path / "killed" / whole.name / "samples.jsonl"
    for _ in range(20):
        before = len(list(read_lines(journal)))
        run = Running(arguments)
        while not run.is_over and len(list(read_lines(journal))) <= before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        run.signal(signal.SIGKILL)
        run.end()
        assert before < len(list(read_lines(journal))) < many, "the kill came too late"
    done = forked(*arguments, "--json")
    assert done.code == 0 and done.json["metrics"] == wanted.json["metrics"]
    assert same(timeless(journal.parent), timeless(whole)) and len(timeless(whole)) == many
    assert len(journal.read_text().splitlines()) == many  # nothing was scored twice


def test_a_journal_without_line_ends_fills_no_memory(tmp_path: Path) -> None:
    path = store(tmp_path, [0, 1], [0, 1])
    with (path / JOURNAL).open("ab") as file:
        file.truncate(12 * MAX_LINE_BYTES)  # sparse: zeros after the two lines
    tracemalloc.start()
    assert list(read_records(path)) == ["s0000", "s0001"]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 5 * MAX_LINE_BYTES


SAVED = ("--save-errors",)
READING = (
    *(("show", "RUN"), ("show", "RUN", "--json"), ("show", "RUN", "--statistics")),
    *(("leaderboard",), ("runs",), ("compare", "RUN", "OTHER"), ("power", "RUN", "OTHER")),
    *(("show", "RUN", "--metric", "accuracy", "--by", "shape"), ("study", "small", "--show")),
    *(
        ("report", "RUN", "--images", "0", "--out", "OUT"),
        ("learn", "OTHER", "deviation", "--json"),
    ),
    *(("replay", "OTHER", "--strategy", "uniform", "--set", "samples=2", "--results", "ELSE"),),
    *(("export", "RUN", "--format", "csv"),),
)
WRITING = (
    *(("results", "columns", "RUN", "FILE"), ("learn", "OTHER", "calibration")),
    *(("show", "RUN", "--pictures"), ("results", "merge", "RUN"), ("study", "FILE.toml")),
    *(("replay", "OTHER", "--strategy", "uniform", "--set", "samples=3"),),
)


@pytest.mark.long
def test_all_that_is_stored_is_read_on_a_read_only_disk(small_disk: Path, tmp_path: Path) -> None:
    """Whatever would write there says in one line that it cannot."""
    subprocess.run(["mount", "-o", "remount,size=10m", small_disk], check=True)
    results = ("--results", small_disk)
    digits = ("run", "digits", "--limit", LIMIT, "--set", "draws=4", *results)
    second = ("--again", 2, "--audit", 2)
    run, other = (
        Path(bench(*digits, "--strategy", strategy, *more, "--json").json["results_dir"])
        for strategy, more in (("uniform", ("--set", "samples=2", *second)), ("full", SAVED))
    )
    file, study = tmp_path / "column.csv", tmp_path / "small.toml"
    file.write_text(f"sample_id,shape\n{read_manifest(run).samples[0]},round")
    study.write_text('datasets = ["digits"]\nbackbones = ["random"]\nlimit = 4\n')
    assert bench("results", "columns", run, file).code == 0
    assert bench("learn", other, "calibration", *results).code == 0
    assert bench("study", study, *results).code == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    places = {"RUN": run, "OTHER": other, "OUT": tmp_path / "page.html", "ELSE": tmp_path / "else"}
    places |= {"FILE": file, "FILE.toml": study}

    def words(asked: tuple[object, ...]) -> list[object]:
        more = () if "--results" in asked or asked[0] == "export" else results
        return [places.get(str(word), word) for word in (*asked, *more)]

    repeated = (*digits, "--strategy", "uniform", "--set", "samples=2", *second, "--json")
    for asked in (*READING, repeated):
        done = bench(*words(asked))
        assert done.code == 0 and "cannot be written" not in done.err, (asked, done.err)
    for asked in WRITING:
        done = bench(*words(asked))
        lines = [line for line in done.err.splitlines() if "cannot be written" in line]
        assert done.code in (1, 2) and len(lines) == 1, (asked, done.err)
        assert "Traceback" not in done.err and "Unexpected" not in done.err
