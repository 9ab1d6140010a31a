"""Which protocol a stored run repeats: a small file in its folder, for listings."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from bench.machine.files import write_atomically
from bench.store.folder import list_runs

MARK = "protocol.json"


def mark(folder: Path, protocol: str) -> None:
    """Write down that a run repeats a protocol; the run is complete without that."""
    with suppress(OSError):
        write_atomically(folder / MARK, json.dumps({"protocol": protocol}))


def reproduced(results: Path) -> dict[str, list[str]]:
    """Return protocol → the runs below a folder that repeat it."""
    found: dict[str, list[str]] = {}
    for path in list_runs(results) if results.is_dir() else ():
        with suppress(OSError, ValueError, KeyError, TypeError):
            name = json.loads((path / MARK).read_text("utf-8"))["protocol"]
            found.setdefault(str(name), []).append(path.name)
    return found
