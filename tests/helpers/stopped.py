"""Runs that stop in the middle: in this process, or in a child that only writes to the store.

The child is forked from this process and imports nothing, so that a real kill and a real limit of
the kernel cost milliseconds. `helpers.interrupted` does the same to whole commands.
"""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import PATIENCE
from helpers.runs import a_manifest, a_record

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Evaluate
from bench.errors import StoreError
from bench.store.folder import read_records
from bench.store.formats.journal import JOURNAL
from bench.store.writing import RunFolder

SAMPLES = [f"s{number:02d}" for number in range(12)]
CELLS = Evaluate(np.arange(3), np.arange(5))
REFUSED = 7  # exit code of a child whose disk is full


def write(
    run: Path, errors: bool = False, then: Callable[[int], object] = lambda decided: None
) -> None:
    """Decide what is outstanding of twelve images, as `execute` does; call `then` after each."""
    with RunFolder(run, a_manifest(SAMPLES)) as folder:
        outstanding = folder.outstanding(SAMPLES, errors)
        for decided, sample_id in enumerate(outstanding, start=1):
            cells = np.random.default_rng(SAMPLES.index(sample_id)).random((3, 5), np.float32)
            result = Decided(Sample(sample_id, 0, {}), cells=[(CELLS, cells)])
            record = a_record(sample_id, 0, SAMPLES.index(sample_id) % 3)
            folder.append(record, result if errors else None, np.arange(5))
            then(decided)


def killed_after(run: Path, images: int, errors: bool = False) -> int:
    """Kill the child when so many images are decided; return its exit code."""

    def kill(decided: int) -> None:
        if decided == images:
            os.kill(os.getpid(), signal.SIGKILL)

    return _child(lambda: write(run, errors, kill))


def limited_after(run: Path, images: int, beyond: int, how: str, errors: bool = False) -> int:
    """Limit the size of the child's files in the middle of a write; return its exit code.

    Beyond the limit the kernel takes a part of the bytes. Then it kills the process ("SIGXFSZ"),
    or, where the signal is ignored as Python does ("refuse"), it refuses the rest as a full disk
    does.

    Args:
        run: the folder.
        images: decided before the limit is set.
        beyond: bytes that `samples.jsonl` may still grow by.
        how: "SIGXFSZ" or "refuse".
        errors: whether they are stored too.
    """

    def limit(decided: int) -> None:
        if decided == images:
            size = (run / JOURNAL).stat().st_size + beyond
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    def be() -> None:
        if how == "SIGXFSZ":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        try:
            write(run, errors, limit)
        except StoreError as error:
            assert "cannot be written any more: " in str(error)
            assert "Make room, and the same command resumes" in str(error)
            os._exit(REFUSED)

    return _child(be)


def _child(be: Callable[[], None]) -> int:
    process = multiprocessing.get_context("fork").Process(target=be)
    process.start()
    process.join(PATIENCE)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


@contextmanager
def interrupted_after(images: int) -> Iterator[None]:
    """Interrupt a run in this process, as Ctrl-C does, when a run has so many records."""
    append = RunFolder.append

    def stop(self: RunFolder, record: Any, *rest: Any) -> None:
        append(self, record, *rest)
        if len(read_records(self.path)) == images:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "append", stop)
        yield
