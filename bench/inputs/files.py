"""Files that a pattern means."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import UserError, quoted
from bench.machine.files import is_there

MOST_FILES = 1_000_000  # that a pattern may mean


def expand(pattern: str) -> list[Path]:
    """Return the files that a pattern means: `shard-{000..031}.tar`, or a name without braces.

    Raises:
        UserError: the braces hold no range of numbers, or a file of it is not there.
    """
    found = re.fullmatch(r"([^{}]*)\{(\d{1,18})\.\.(\d{1,18})\}([^{}]*)", pattern)
    names = [pattern]
    if found is not None:
        before, first, last, after = found.groups()
        if not int(first) <= int(last) < int(first) + MOST_FILES:
            raise UserError(f"{quoted(pattern)} is no range of files; write it as {{000..031}}.")
        width = len(first) if first.startswith("0") else 0
        names = [f"{before}{n:0{width}}{after}" for n in range(int(first), int(last) + 1)]
    for name in names:
        if not is_there(name):
            of = f", of {quoted(pattern)}" if name != pattern else ""
            raise UserError(f"There is no file {quoted(name)}{of}.")
    return [Path(name) for name in names]
