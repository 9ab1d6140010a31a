"""Several processes change the small files of one run at once: nothing that was printed is gone."""

import multiprocessing
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from helpers.at_once import TURNS, change_all, score
from helpers.command import PATIENCE, Finished, bench
from helpers.interrupted import Running
from helpers.matrix import matrix
from helpers.runs import store

from bench.store import writing
from bench.store.calibrations import calibration_files, read_calibration
from bench.store.columns import read_columns
from bench.store.folder import read_manifest
from bench.store.formats.journal import JOURNAL
from bench.store.locking import locked
from bench.store.questions import read_questions
from bench.store.runs import read_run
from bench.store.summary import read_again
from bench.store.writing import RunFolder

FORKS = multiprocessing.get_context("fork")  # of this process, as in `helpers.stopped`
PROCESSES = 6
BASELINE = "digits-random-full-3bae6f72"


@pytest.mark.parametrize("scored", matrix([False, True], [False]))
@pytest.mark.parametrize("killed_in", matrix([None, 3], [3]))
def test_all_changes_of_all_processes_are_kept(
    killed_in: int | None, scored: bool, tmp_path: Path
) -> None:
    """Also those of a process that is killed, and while another one scores the run."""
    labels = [number % 3 for number in range(60)]
    path = store(tmp_path, labels, labels)
    ready, over = FORKS.Event(), FORKS.Event()
    scoring = FORKS.Process(target=score, args=(path, ready, over))
    if scored:
        scoring.start()
        assert ready.wait(PATIENCE)
    processes = [
        FORKS.Process(
            target=change_all, args=(path, number, None if number else killed_in, not scored)
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    over.set()
    if scored:
        scoring.join(PATIENCE)
        assert scoring.exitcode == 0 and len((path / JOURNAL).read_text().splitlines()) > 60
    turns = [TURNS if number or killed_in is None else killed_in for number in range(PROCESSES)]
    assert [p.exitcode for p in processes[1:]] == [0] * (PROCESSES - 1)
    assert processes[0].exitcode == (0 if killed_in is None else -signal.SIGKILL)

    names = [(number, turn) for number, last in enumerate(turns) for turn in range(last)]
    questions = sorted(entry.question for entry in read_questions(path, read_manifest(path)))
    assert questions == sorted(f"width 0.{number}{turn}" for number, turn in names)
    run = read_run(path)
    assert sorted(read_columns(path, run.manifest)) == [f"{a}-{b}" for a, b in names]
    stored = [read_calibration(path, name).calibration for name in calibration_files(path)]
    images = [1 + number * TURNS + turn for number, turn in names]
    assert sorted(calibration.images for calibration in stored) == images
    again = read_again(path, run.manifest, run.decided())
    assert again and again.images == max(images)
    assert scored or (run.manifest.config.note and run.manifest.config.tags)


@pytest.mark.long
def test_small_files_need_not_wait_for_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "locked", partial(locked, wait=0.1))  # of labels, instead of 10 s
    run, file = complete(tmp_path), tmp_path / "column.csv"
    manifest = read_manifest(run)
    file.write_text(f"sample_id,shape\n{manifest.samples[0]},round")
    command = ("run", "digits", "--backbone", "nearest-mean", "--results", run.parent)
    with RunFolder(run, manifest):
        assert bench("results", "columns", run, file).code == 0
        assert bench(*command, "--until", "width 0.3").code == 0
        refused = bench(*command, "--note", "later")
    assert refused.refuses("Another process")
    assert list(read_columns(run, manifest)) == ["shape"]
    assert [entry.question for entry in read_questions(run, read_manifest(run))] == ["width 0.3"]


def complete(results: Path) -> Path:
    """Make a complete run, beside one that it can be compared with, and return its folder."""
    for backbone in ("random", "nearest-mean"):
        assert bench("run", "digits", "--backbone", backbone, "--results", results).code == 0
    [path] = results.glob("digits-nearest-mean-*")
    return path


def at_once(commands: Sequence[Sequence[object]]) -> list[Finished]:
    """Run commands in as many processes, all of which are started before one is waited for.

    One more process runs the first command and is killed after a while.
    """
    killed = Running([*map(str, commands[0])])
    processes = [Running([*map(str, command)]) for command in commands]
    time.sleep(random.uniform(0, 4))
    with suppress(ProcessLookupError):  # it may have ended
        killed.signal(signal.SIGKILL)
    killed.end()
    done = [process.end() for process in processes]
    assert [process.code for process in done] == [0] * len(done), [p.err for p in done]
    return done


@pytest.mark.slow
def test_every_printed_answer_is_stored(tmp_path: Path) -> None:
    run = complete(tmp_path)
    asked = [f"better than {BASELINE} by 0.{number:02}" for number in range(1, 25)]
    command = ("run", "digits", "--backbone", "nearest-mean", "--results", tmp_path, "--json")
    commands = [(*command, "--until", question) for question in asked]
    with RunFolder(run, read_manifest(run)):  # another process scores it
        done = [at_once(commands[k : k + PROCESSES]) for k in range(0, len(asked), PROCESSES)]
    answers = [process.json["answer"] for process in chain.from_iterable(done)]
    stored = {
        entry.question: entry.answer and entry.answer.plain()
        for entry in read_questions(run, read_manifest(run))
    }
    assert stored == dict(zip(asked, answers, strict=True))
