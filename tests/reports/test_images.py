"""Pictures of a report: choice, size, confused classes; limits of the process that opens data."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import PATIENCE, bench
from helpers.opened_here import Opened
from helpers.refusals import refused
from helpers.reporting import save_pictures, store_run
from helpers.runs import a_manifest, a_record
from PIL import Image

from bench.contracts.strategy import Ints
from bench.errors import UserError
from bench.reports.classes import most_confused_classes
from bench.reports.figures import images
from bench.reports.figures.gallery import choose_images
from bench.reports.figures.images import Images, make_thumbnail
from bench.reports.text import shorten
from bench.stats.metrics.summarise import Confusions, confusions_of
from bench.store.formats.decisions import Decisions, as_decisions
from bench.store.formats.documents import Manifest

CLASSES = ["ant", "bee"]
# In the place of the process: its first line says that it is ready, then it reads a request.
STUBBORN = {
    "sleeps": "import time; print('ready', flush=True); time.sleep(1000)",
    "ends": "print('ready', flush=True); input()",
}


@pytest.fixture(scope="module")
def opened_here() -> None:
    """Replace nothing: most of these are about the process."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open data in this process."""
    monkeypatch.setattr(images, "_Process", Opened)


def naming(**config: Any) -> Manifest:
    return a_manifest(["ant/0.png"], config={"limit": None, **config})


def children() -> list[str]:
    """Return the command lines of this process's children that open data."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    lines = [Path(f"/proc/{child}/cmdline").read_text() for child in found]
    return [line for line in lines if "\0-P\0" in line]


@pytest.mark.long
def test_images_come_from_a_process_with_label_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No code of the current folder is run."""
    data = save_pictures(tmp_path / "data", CLASSES, 2)
    (data / "bee" / "1.png").write_bytes(b"rubbish")
    for module in ("datasets", "json", "resource"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    manifest, ids = naming(dataset="folder", data_dir="data"), ["bee/0.png", "bee/1.png", "no"]
    asked = Images({})
    found = asked.of(manifest, ids)
    assert list(found) == ids[:2] and found["bee/0.png"].label == 1
    assert max(Image.open(BytesIO(found["bee/0.png"].content)).size) == 128
    assert found["bee/1.png"].kind is None
    assert children()
    del asked
    assert not children()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("sleeps", "--data-dir FOLDER"),
        ("ends", "process"),
    ],
)
def test_a_process_that_does_not_answer_is_given_up(
    does: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "SERVE", STUBBORN[does])
    monkeypatch.setattr(images, "DATA_TIMEOUT", 0.1 if does == "sleeps" else 100.0)
    asked = Images({})
    for _ in range(2):  # the second time at once
        with refused(reason):
            asked.of(naming(dataset="folder"), ["x"])
    assert not children()


def limited() -> None:
    """Take a third more than the limit, in a process that had memory before."""
    images._limit_memory()
    held = bytearray(images.MEMORY // 3)
    with pytest.raises(MemoryError):
        bytearray(images.MEMORY)
    assert held


def test_memory_has_a_limit_and_what_libraries_took_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "2 GiB" in images._reason(MemoryError())
    monkeypatch.setattr(images, "MEMORY", 2**28)
    before = bytearray(images.MEMORY // 3)
    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0 and before


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


HOSTILE: dict[str, Callable[[Path], dict[str, str]]] = {
    "a pipe for the data": lambda folder: {"data_dir": a_pipe(folder / "data.csv")},
    "a pipe as a tar": lambda folder: {"data_dir": a_pipe(folder / "data.tar")},
    "a device as the labels": lambda folder: {"data_dir": str(folder), "labels": "/dev/zero"},
    "a pipe as the labels": lambda folder: {
        "data_dir": str(folder),
        "labels": a_pipe(folder / "labels.csv"),
    },
    "a pipe for the names of classes": lambda folder: {
        "data_dir": str(save_pictures(folder / "pictures", CLASSES, 1)),
        "class_names": a_pipe(folder / "names.txt"),
    },
    "a device for the names of classes": lambda folder: {
        "data_dir": str(save_pictures(folder / "pictures", CLASSES, 1)),
        "class_names": "/dev/zero",
    },
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_data_is_refused(kind: str, here: None, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        Images({}).of(naming(dataset="folder", **HOSTILE[kind](tmp_path)), ["ant/0.png"])


def test_a_report_of_a_run_that_names_hostile_data_is_written_without_its_pictures(
    here: None, tmp_path: Path
) -> None:
    data = save_pictures(tmp_path / "data", CLASSES, 3)
    run = store_run(tmp_path / "results", "run", data, CLASSES)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["config"] |= HOSTILE["a pipe for the data"](tmp_path)
    (run / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "page.html"
    done = bench("report", run, "--out", out)
    assert done.code == 0 and "<img" not in out.read_text(), done.err
    done = bench("show", run, "--pictures")
    assert done.code == 0, done.err


def decisions(rows: Iterable[tuple[int, int, int | None, float | None]]) -> Decisions:
    """Decided images: id, label, prediction (None: failed) and margin."""
    return as_decisions(
        [a_record(str(i), label, said, margin=margin) for i, label, said, margin in rows]
    )


def test_the_gallery_takes_what_tells_most() -> None:
    wrong = [(i, 0, 1, 0.1 * i) for i in range(20)]
    right = [(100 + i, i % 4, i % 4, 0.01 * i) for i in range(40)]
    failed = [(200, 2, None, None)]

    def chosen(rows: Sequence[Any], most: int) -> list[int]:
        taken = choose_images(decisions(rows), most).tolist()
        return [rows[place][0] for place in taken]

    ids = chosen([*right, *wrong, *failed], 20)
    assert len(ids) == len(set(ids)) == 20
    assert ids[:3] == [200, 19, 18]  # what failed, then the mistakes of which it was surest
    assert ids[14:] == [100, 101, 102, 103, 104, 105]  # the closest calls, every class among them
    few = chosen([*right, *wrong[:2]], 20)
    assert [i < 100 for i in few] == [True] * 2 + [False] * 18
    everything = [i for i, *_ in [*wrong[::-1], *right]]
    assert chosen([*right, *wrong], 200) == everything
    # A class whose images are all clear still shows three.
    clear = [(300 + i, 9, 9, 5.0) for i in range(8)]
    assert len([i for i in chosen([*right, *clear], 20) if i >= 300]) == 3


def test_thumbnails_are_small_and_tiny_images_keep_their_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8)
    kind, content, small = make_thumbnail(Image.fromarray(noise))
    assert kind == "image/webp" and not small and len(content) < 15_000
    shown = Image.open(BytesIO(content))
    assert max(shown.size) == 128
    tiny = Image.fromarray(noise[:8, :8, 0])
    kind, content, small = make_thumbnail(tiny)
    shown = Image.open(BytesIO(content))
    assert kind == "image/png" and small and np.array_equal(np.asarray(shown), noise[:8, :8, 0])


def most_confused(matrix: Ints, most: int) -> list[int]:
    true, predicted = np.nonzero(matrix)
    confusions = Confusions(true, predicted, matrix[true, predicted])
    return list(map(int, most_confused_classes(confusions, len(matrix), most)))


def test_the_pairs_of_a_run_make_its_matrix() -> None:
    labels, predictions = [2, 0, 2, 1, 2], [0, 0, 0, 1, None]
    records = [
        a_record(f"x{n}", *both, n_classes=3, error="unreadable" if both[1] is None else None)
        for n, both in enumerate(zip(labels, predictions, strict=True))
    ]
    confusions = confusions_of(as_decisions(records))
    assert confusions.square(np.arange(3)).tolist() == [[1, 0, 0], [0, 1, 0], [2, 0, 0]]
    assert confusions.square(np.array([0, 2])).tolist() == [[1, 0], [2, 0]]
    assert confusions.totals(4).tolist() == [1, 1, 2, 0]


def test_the_most_confused_classes_by_hand() -> None:
    matrix = np.diag(np.full(8, 9))
    matrix[5, 2] = 4
    matrix[2, 5] = 3
    matrix[7, 1] = 2
    assert most_confused(matrix, 2) == [2, 5]
    assert most_confused(matrix, 4) == [1, 2, 5, 7]
    filled_up_from_the_first = [0, 1, 2, 3, 5, 7]
    assert most_confused(matrix, 6) == filled_up_from_the_first
    assert most_confused(matrix, 20) == list(range(8))


def test_a_single_true_class_with_many_mistakes() -> None:
    matrix = np.zeros((50, 50), np.int64)
    matrix[49, :40] = 1
    assert most_confused(matrix, 10) == [*range(9), 49]


def test_a_long_name_is_cut_in_the_middle_and_never_lost() -> None:
    assert shorten("x" * 50 + "y" * 50) == "x" * 12 + "…" + "y" * 11 and shorten("cat") == "cat"
    assert [len(shorten("x" * 30, most)) for most in (1, 2, 3, 24, 29)] == [1, 2, 3, 24, 29]
    twins = {shorten(f"latin small letter turned {letter}") for letter in "rmy"}
    assert len(twins) == 3
