"""The toolkit's cache folder."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from bench.machine.writing import write_atomically


def cache_dir(*parts: str) -> Path:
    """Return a folder of the cache, made if need be: `BENCH_CACHE_DIR`, or `~/.cache/bench`."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("BENCH_CACHE_DIR") or user / "bench", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home must not stop a run: what is cached can be made again
        folder = Path(tempfile.gettempdir(), f"bench-cache-{os.getpid()}", *parts)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(path: Path, content: str | bytes) -> None:
    """Write a file of the cache; where the disk does not take it, it is made again next time.

    It is not forced to the disk, which takes 5 ms per file: a power cut may cost what can be made
    again.
    """
    with suppress(OSError):
        write_atomically(path, content, durable=False)
