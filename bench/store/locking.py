"""The two locks of a run's folder: a long one while images are scored, and a short one.

The short one is held while a small file beside the records is read, changed and written, so that
labelling, asking and calibrating need not wait for a run that is being scored.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import StoreError, UserError
from bench.machine.files import regular_file, write_atomically
from bench.store.formats.fields import Document, to_json
from bench.store.formats.journal import Journal
from bench.store.shipped import is_shipped

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK, SHORT_LOCK = ".lock", ".short.lock"
SHORT_LOCK_WAIT = 10.0  # seconds; others hold it for milliseconds
LONG_LOCK_WAIT = 0.1  # seconds; `is_in_use` holds it for microseconds, and may do so just now


class LockedFolder:
    """A folder that `locked` locks, the only way to write its files (OSError if that fails)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: Document | str | bytes, durable: bool = True) -> None:
        """Replace a file atomically; see `write_atomically`."""
        text = to_json(content.plain()) if isinstance(content, Document) else content
        write_atomically(self.path / name, text, durable)

    def journal(self, name: str) -> Journal:
        """Open a file of lines to append to it."""
        regular_file(self.path, name)
        return Journal(self.path / name)

    def remove(self, *names: str) -> None:
        """Remove files and folders, as far as they exist."""
        for name in names:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def locked(
    path: Path, name: str = SHORT_LOCK, wait: float = SHORT_LOCK_WAIT
) -> Iterator[LockedFolder]:
    """Hold a lock of the folder `path`, of a run or a study, while one of its files is changed.

    Raises UserError if another process still holds the lock after `wait` seconds or the run came
    with the package, and StoreError if the lock or a file in the block cannot be written.
    """
    refuse_shipped(path)
    from filelock import FileLock, Timeout  # here: readers need no lock

    regular_file(path, name)
    try:
        with FileLock(path / name).acquire(timeout=wait, poll_interval=0.01):
            yield LockedFolder(path)
    except Timeout:
        raise UserError(
            f"Another process is writing {path}. Wait for it, or give this run another --results"
            " folder."
        ) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}.") from error


def refuse_shipped(path: Path) -> None:
    """Raise UserError if the folder is that of a run that came with the package."""
    if is_shipped(path):
        raise UserError(
            f"{path.name} came with the package and is not changed. Copy its folder, {path}, or"
            " make the run again: `bench show` prints the command."
        )


def refuse_in_use(path: Path) -> None:
    """Raise UserError if another process scores the run. Nothing heavy has to be loaded for it."""
    if (path / LOCK).exists():
        # A folder that cannot be locked at all is refused later, by `RunFolder`.
        with suppress(StoreError), locked(path, LOCK, wait=LONG_LOCK_WAIT):
            pass


def is_in_use(path: Path) -> bool:
    """Return whether a process is scoring the run; False where that cannot be told."""
    if fcntl is None:
        return False
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never scored here, or not readable
        return False
    return False
