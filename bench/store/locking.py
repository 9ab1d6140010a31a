"""The two locks of a run's folder: a long one while images are scored, and a short one.

The short one is held while a small file beside the records is read, changed and written. It is
another one, so that labelling, asking and calibrating need not wait for a run that is being scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bench.errors import StoreError, UserError
from bench.machine.files import regular_file
from bench.store.shipped import is_shipped

LOCK, SHORT_LOCK = ".lock", ".short.lock"
MAX_WAIT = 10.0  # seconds; the short lock is held for milliseconds


@contextmanager
def locked(path: Path, name: str = SHORT_LOCK, wait: float = MAX_WAIT) -> Iterator[None]:
    """Hold a lock of the run in the folder `path` while one of its files is changed.

    Raises UserError if another process still holds the lock after `wait` seconds or the run came
    with the package, and StoreError if the lock or a file in the block cannot be written.
    """
    if is_shipped(path):
        raise UserError(
            f"{path.name} came with the package and is not changed. Copy its folder, {path}, or"
            " make the run again: `bench show` prints the command."
        )
    regular_file(path, name)
    try:
        with FileLock(path / name).acquire(timeout=wait, poll_interval=0.01):
            yield
    except Timeout:
        raise UserError(
            f"Another process is writing {path}. Wait for it, or give this run another --results"
            " folder."
        ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}.") from error


def refuse_in_use(path: Path) -> None:
    """Raise UserError if another process scores the run, before anything heavy is loaded."""
    if (path / LOCK).exists():
        with suppress(StoreError), locked(path, LOCK, wait=0):  # `RunFolder` reports a StoreError
            pass
