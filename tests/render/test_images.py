"""A stored run's data is opened by a process with limits, whatever the run says that it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench, python
from helpers.plugins import install
from helpers.reporting import save_pictures, store_run
from helpers.runs import a_manifest
from PIL import Image

from bench.errors import UserError
from bench.render import images
from bench.render.images import Images
from bench.store.documents import Manifest

CLASSES = ["ant", "bee"]
STUBBORN = """
import time
from bench import hookimpl

@hookimpl
def register_datasets(register):
    for name in ("sleeps", "eats", "exits"):
        target = f"stubborn:{name}"
        register(name, target=target, classes=("a", "b"), splits={"test": 2}, split="test")

class Stubborn:
    def load(self, split, data_dir):
        print("{}")
        self.act()

class sleeps(Stubborn):
    def act(self):
        time.sleep(1000)

class eats(Stubborn):
    def act(self):
        held = [bytearray(1 << 28) for _ in range(40)]

class exits(Stubborn):
    def act(self):
        import os
        os._exit(0)
"""


def naming(**config: Any) -> Manifest:
    return a_manifest(["ant/0.png"], config={"limit": None, **config})


def children() -> list[str]:
    """Return the command lines of this process's children that open data."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    lines = [Path(f"/proc/{child}/cmdline").read_text() for child in found]
    return [line for line in lines if "sample_process" in line]


def test_images_come_with_label_and_picture(tmp_path: Path) -> None:
    data = save_pictures(tmp_path / "data", CLASSES, 2)
    (data / "bee" / "1.png").write_bytes(b"rubbish")
    manifest, ids = naming(dataset="folder", data_dir=str(data)), ["bee/0.png", "bee/1.png", "no"]
    found = Images({}).of(manifest, ids)
    assert list(found) == ids[:2] and found["bee/0.png"].label == 1
    assert max(Image.open(BytesIO(found["bee/0.png"].content)).size) == 128
    assert found["bee/1.png"].kind is None
    kept = Images({"d": str(data)}, side=50)
    assert max(Image.open(BytesIO(kept.of(manifest, ids)["bee/0.png"].content)).size) == 50
    assert children()
    del kept
    assert not children()


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ("sleeps", "could not be read within 2 s. --data-dir FOLDER"),
        ("eats", "2 GiB of memory"),
        ("exits", "the process that reads the images ended"),
    ],
)
def test_data_that_takes_too_much_is_given_up(
    dataset: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "stubborn", STUBBORN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("BENCH_LOAD_PLUGINS", "stubborn")
    monkeypatch.setattr(images, "DATA_TIMEOUT", 2.0 if dataset == "sleeps" else 100.0)
    asked = Images({})
    for _ in range(2):  # the second time at once
        with pytest.raises(UserError, match=f"(?i){said}"):
            asked.of(naming(dataset=dataset), ["x"])
    assert not children()


def test_memory_has_a_limit_and_what_libraries_took_is_not_counted() -> None:
    done = python(
        "from bench.render import sample_process\n"
        "import datasets\n"
        "sample_process._limit_memory()\n"
        "held = bytearray(sample_process.MEMORY // 2)\n"
        "try:\n"
        "    more = bytearray(sample_process.MEMORY)\n"
        "except MemoryError:\n"
        "    print('refused')\n"
    )
    assert done.out.strip() == "refused", done.err


def a_manifest_of(run: Path) -> Any:
    return json.loads((run / "manifest.json").read_text())


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
def test_hostile_data_is_given_up(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "DATA_TIMEOUT", 5.0)
    with pytest.raises(UserError):
        Images({}).of(naming(dataset="folder", **HOSTILE[kind](tmp_path)), ["ant/0.png"])
    assert not children()


def test_a_report_of_a_run_that_names_hostile_data_is_written_without_its_pictures(
    tmp_path: Path,
) -> None:
    data = save_pictures(tmp_path / "data", CLASSES, 3)
    run = store_run(tmp_path / "results", "run", data, CLASSES)
    manifest = a_manifest_of(run)
    manifest["config"] |= HOSTILE["a pipe for the data"](tmp_path)
    (run / "manifest.json").write_text(json.dumps(manifest))
    out = tmp_path / "page.html"
    done = bench("report", run, "--out", out)
    assert done.code == 0 and "<img" not in out.read_text(), done.err
    done = bench("show", run, "--pictures")
    assert done.code == 0, done.err
    assert not children()


def test_no_code_of_the_current_folder_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = save_pictures(tmp_path / "data", CLASSES, 1)
    for module in ("datasets", "json", "resource"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    found = Images({}).of(naming(dataset="folder", data_dir="data"), ["ant/0.png"])
    assert found["ant/0.png"].label == 0 and data.is_dir()
