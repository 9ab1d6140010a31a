"""The store: nothing finished is lost, and a run is what its identity says."""

import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.runs import a_manifest
from helpers.scoring import command, same, timeless
from helpers.stopped import SAMPLES, killed_after, write

from bench.errors import PluginError, UserError
from bench.store.folder import MANIFEST, read_manifest, read_records
from bench.store.formats.cells import read_cells
from bench.store.formats.journal import JOURNAL, read_lines
from bench.store.writing import RunFolder


@pytest.mark.parametrize("errors", [False, True])
def test_a_killed_run_has_every_image_that_was_decided_and_none_twice(
    errors: bool, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for images, decided in ((1, 1), (4, 5), (3, 8)):
        assert killed_after(run, images, errors) == -signal.SIGKILL
        with (run / JOURNAL).open("ab") as file:
            file.write(b'{"sample_id": "s0')  # a kill in the middle of a write
        assert len(list(read_lines(run / JOURNAL))) == decided
    write(run, errors)
    write(tmp_path / "whole", errors)
    assert read_records(run) == read_records(tmp_path / "whole")
    assert len((run / JOURNAL).read_text().splitlines()) == len(SAMPLES)
    for name in SAMPLES if errors else ():
        ours, theirs = (read_cells(tmp_path / r / "errors", name, (3, 5)) for r in ("run", "whole"))
        np.testing.assert_array_equal(ours, theirs)


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


def test_errors_asked_for_later_are_made(tmp_path: Path) -> None:
    arguments = command("tiny-digits", tmp_path, "--limit", 3)
    first = bench(*arguments, "--json")
    run = Path(first.json["results_dir"])
    scores = timeless(run)
    assert not (run / "errors").exists()
    assert bench(*arguments, "--save-errors", "--json").code == 0
    assert len(list((run / "errors").glob("*.parquet"))) == 3 and same(timeless(run), scores)


def test_fresh_starts_over(tmp_path: Path) -> None:
    arguments = command("tiny-digits", tmp_path, "--limit", 2)
    bench(*arguments, "--json")
    done = bench(*arguments, "--fresh")
    assert "2 of 2 images" in done.err and "This run is complete" not in done.out


def test_no_manifest_is_written_that_cannot_be_read_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", a_manifest(["a"])) as folder:
        before = (folder.path / MANIFEST).read_bytes()
        for changes in ({"warnings": [3]}, {"fitted": ["a"]}, {"samples": "a"}):
            with refused(next(iter(changes)), kind=ValueError):
                folder.change(**changes)
        assert (folder.path / MANIFEST).read_bytes() == before
        assert read_manifest(folder.path) == folder.manifest
