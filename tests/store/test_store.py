"""The store: nothing finished is lost, and a run is what its identity says."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.interrupted import Running, killed
from helpers.runs import a_manifest
from helpers.scoring import LIMIT, command, same, timeless

from bench.errors import PluginError, UserError
from bench.store.journal import Journal, read_lines
from bench.store.writing import RunFolder


def test_a_killed_run_goes_on_to_the_same_result(whole: Path, tmp_path: Path) -> None:
    arguments = command("tiny-digits", tmp_path, "--limit", LIMIT, "--save-errors")
    journal = tmp_path / whole.name / "samples.jsonl"
    for images, decided in ((1, 1), (4, 5), (3, 8)):
        assert killed(arguments, images).code == -signal.SIGKILL
        with journal.open("ab") as file:
            file.write(b'{"sample_id": "digit-0')  # a kill in the middle of a write
        assert len(list(read_lines(journal))) == decided
    done = bench(*arguments, "--json")
    assert done.code == 0 and "Resuming" in done.err
    run = Path(done.json["results_dir"])
    assert run.name == whole.name and same(timeless(run), timeless(whole))
    lines = (run / "samples.jsonl").read_text().splitlines()
    assert len(lines) == LIMIT  # nothing was scored twice
    assert len(list((run / "errors").glob("*.parquet"))) == LIMIT
    assert done.json["metrics"] == json.loads((whole / "summary.json").read_text())["metrics"]


@pytest.mark.parametrize(
    ("error", "before", "kept"),
    [
        (UserError("the weights are not finite"), None, False),
        (PluginError("a plugin", "fails"), None, False),
        (KeyboardInterrupt(), None, True),
        (UserError("the weights are not finite"), "samples.jsonl", True),
    ],
)
def test_a_run_refused_before_its_first_image_leaves_no_folder(
    error: BaseException, before: str | None, kept: bool, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    if before:
        path.mkdir()
        (path / before).touch()
    with pytest.raises(type(error)), RunFolder(path, a_manifest(["a"])):
        raise error
    assert path.exists() == kept


def journals(results: Path) -> list[Iterator[Any]]:
    return [read_lines(path) for path in results.rglob("samples.jsonl")]


def test_an_interrupt_is_no_failure(tmp_path: Path) -> None:
    run = Running(command("tiny-digits", tmp_path))
    while not run.is_over and not any(map(list, journals(tmp_path))):
        time.sleep(0.05)
    run.signal(signal.SIGINT)
    done = run.end()
    assert done.code == 130
    assert "the same command resumes" in done.err and "Traceback" not in done.err


def test_a_larger_limit_adds_to_a_run(copied: Path) -> None:
    before = timeless(copied)
    done = bench(*command("tiny-digits", copied.parent, "--limit", LIMIT + 2, "--json"))
    assert done.json["run_id"] == copied.name and done.json["dataset"]["n_samples"] == LIMIT + 2
    after = timeless(copied)
    assert len(after) == LIMIT + 2 and same({k: after[k] for k in before}, before)


def test_errors_asked_for_later_are_made(tmp_path: Path) -> None:
    arguments = command("tiny-digits", tmp_path, "--limit", 3)
    first = bench(*arguments, "--json")
    run = Path(first.json["results_dir"])
    scores = timeless(run)
    assert not (run / "errors").exists()
    assert bench(*arguments, "--save-errors").code == 0
    assert len(list((run / "errors").glob("*.parquet"))) == 3 and same(timeless(run), scores)


def test_a_damaged_line_is_scored_again(tmp_path: Path) -> None:
    arguments = command("tiny-digits", tmp_path, "--limit", 4)
    run = Path(bench(*arguments, "--json").json["results_dir"])
    before = timeless(run)
    journal = run / "samples.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]) + "\n")
    assert bench(*arguments).code == 0 and same(timeless(run), before)


def test_fresh_starts_over(tmp_path: Path) -> None:
    arguments = command("tiny-digits", tmp_path, "--limit", 2)
    bench(*arguments)
    done = bench(*arguments, "--fresh")
    assert "2/2 images" in done.err and "This run is complete" not in done.out


def test_journal_drops_a_torn_line_only(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    journal = Journal(path)
    journal.append({"sample_id": "a"})
    journal.close()
    with path.open("ab") as file:
        file.write(b"x" * 200_000)  # longer than the block that is searched
    journal = Journal(path)
    journal.append({"sample_id": "b"})
    journal.close()
    assert [record["sample_id"] for _, _, record in read_lines(path)] == ["a", "b"]
