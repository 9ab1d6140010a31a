"""What splits are called, and which files are of which split."""

from __future__ import annotations

import re
from pathlib import Path

from bench_plugins.datasets._listing import LeftOut, find_files

SPLITS = ("test", "validation", "val", "valid", "train")  # in order of preference


def splits_of(source: Path, ending: str) -> dict[str, list[Path]]:
    """Return the files of each split, which a file's or its folder's name begins with."""
    if source.is_file():
        return {"all": [source]}
    found: dict[str, list[Path]] = {}
    begins = re.compile("|".join(SPLITS))
    for path in find_files(source, LeftOut()):
        if path.suffix == ending:
            named = begins.match(path.stem) or begins.match(path.parent.name)
            found.setdefault(named.group() if named else "all", []).append(path)
    return found
