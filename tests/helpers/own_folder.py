"""No test writes, links to or removes what lies outside the folder for temporary files."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.places import ROOT

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
TARGETS = {"os.link": 2, "os.rename": 2, "os.symlink": 2, "os.truncate": 1}
TARGETS |= dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"), 1)
# What Python and libraries keep for later, and two devices that keep nothing.
_KEPT = [Path.home() / ".cache", Path.home() / ".config", ROOT / ".hypothesis"]
_DEVICES = [Path("/dev/null"), Path("/dev/full")]
_OWN = [Path(tempfile.gettempdir()), *_KEPT, *_DEVICES]
_roots = {str(form) for path in _OWN for form in (path, path.resolve())}
_watched = [False]


def targets(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    """Yield the absolute paths that an audit event of Python writes, links to or removes."""
    count = TARGETS.get(event, 0)
    if event == "open" and (arguments[2] or 0) & WRITES:
        count = 1
    for path in arguments[:count]:
        name = "" if isinstance(path, int) else os.fsdecode(path)
        if name.startswith("/") and "__pycache__" not in name:
            yield os.path.normpath(name)


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched[0] and (event == "open" or event in TARGETS):
        for path in targets(event, arguments):
            if not any(path == root or path.startswith(f"{root}/") for root in _roots):
                raise AssertionError(f"{event} of {path}, outside the test's folder")


sys.addaudithook(_check)


@contextmanager
def watched() -> Iterator[None]:
    """Refuse such targets in this process, for a test."""
    _watched[0] = True
    try:
        yield
    finally:
        _watched[0] = False
