"""One of several processes that change all small files of a run at the same time."""

import os
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np

from bench.stats.calibration.risk import LEVEL
from bench.store.calibrations import Calibration, write_calibration
from bench.store.columns import add_columns
from bench.store.folder import read_manifest, read_records
from bench.store.formats.documents import StoredConfig
from bench.store.formats.identity import digest
from bench.store.questions import keep_question
from bench.store.runs import read_run
from bench.store.summary import Repeated, write_again
from bench.store.writing import RunFolder, update_labels

TURNS = 6


def score(path: Path, ready: Event, over: Event) -> None:
    """Score the first image of a run again and again, between the two events."""
    with RunFolder(path, read_manifest(path)) as folder:
        record = next(iter(read_records(path).values()))
        ready.set()
        while not over.is_set():
            folder.append(record, None, np.zeros(0, np.int64))
            time.sleep(0.01)


def change_all(path: Path, number: int, killed_in: int | None, labels: bool) -> None:
    """Change every small file of a run `TURNS` times, with content of this process's own.

    The process kills itself in the turn `killed_in`, if that is given. `labels` tells whether to
    change note and tag too, which are in the manifest.
    """
    manifest = read_manifest(path)
    decided = read_run(path).decided()
    for turn in range(TURNS):
        if turn == killed_in:
            os.kill(os.getpid(), signal.SIGKILL)
        name = f"{number}-{turn}"
        keep_question(path, manifest, f"width 0.{number}{turn}", 0)
        add_columns(path, manifest, {name: {manifest.samples[0]: name}})
        label = {"note": f"note {name}"} if number % 2 else {"tag": f"tag{name}"}
        if labels:
            update_labels(path, StoredConfig(dataset=manifest.dataset.name, **label))
        images = 1 + number * TURNS + turn
        write_calibration(path, calibration_of(path, images))
        write_again(path, manifest, again_of(images, len(decided)), decided)


def calibration_of(path: Path, images: int) -> Calibration:
    """A calibration whose key depends on the number of images."""
    manifest = read_manifest(path)
    return Calibration(
        run_id=manifest.run_id,
        identity=digest(manifest.identity),
        split="test",
        images=images,
        level=LEVEL,
    )


def again_of(images: int, of: int) -> Repeated:
    """A report of so many images decided again."""
    return Repeated(
        of=of,
        images=images,
        changed=[],
        expected=0.0,
        expected_ci95=(0.0, 1.0),
        seed=0,
        evaluations=0,
        evaluation_equivalents=0.0,
        seconds=0.0,
    )
