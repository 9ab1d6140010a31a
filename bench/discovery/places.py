"""What a declaration may name: a file inside its folder, or, where the user named it, anything.

`bench run ./folder` takes a declaration that is found in the folder. Whoever made the data wrote
it, so it must not make the toolkit read other files of the machine or ask a network.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import BenchWarning, UserError, quoted
from bench.machine.files import OutsideError, inside

DOWNLOAD = "download"  # the source of a dataset that is only read from its original download
_SCHEME = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")


def is_path(source: str) -> bool:
    """Tell whether a source is a file or folder, and not `hf:owner/name` or the like."""
    return source != DOWNLOAD and not _SCHEME.match(source)


def check_places(said: Mapping[str, Any], where: str, folder: Path, in_data: bool) -> None:
    """Refuse what leads out of a data folder; warn of it where the user named the declaration.

    Args:
        said: the declaration, its values of the right types.
        where: its file, for messages.
        folder: its folder, from which its names lead.
        in_data: whether it was found in a data folder.

    Raises:
        UserError: it was, and it names another place.
    """
    elsewhere = [
        f"{key} = {quoted(name)}"
        for key, name in _names(said)
        if _leads_out(folder, key, name, in_data)
    ]
    if elsewhere and in_data:
        raise UserError(
            f"{where} was found with the data, and names what is not in its folder: {elsewhere[0]}."
            f" If you trust it, name the file itself: bench run {where}"
        )
    if elsewhere:
        warnings.warn(
            f"{where} names what is not in its folder: {', '.join(elsewhere)}.",
            BenchWarning,
            stacklevel=4,
        )


def _names(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key that names a source, weights or a text file, with the name."""
    layout = said.get("layout", {})
    texts = {key: said.get(key) for key in ("source", "backbone", "classes", "found", "groups")}
    texts["layout.reader"] = layout.get("reader")
    for table in ("templates", "labels"):
        texts |= {f"{table}.{key}": value for key, value in said.get(table, {}).items()}
    yield from ((key, name) for key, name in texts.items() if isinstance(name, str))


def _leads_out(folder: Path, key: str, name: str, in_data: bool) -> bool:
    if key == "backbone":  # one of the registered names is the user's choice as well
        return in_data or "/" in name or "\\" in name
    if key == "layout.reader":  # it reads the copy that --data-dir names
        return in_data
    if key == "source" and not is_path(name):
        return name != DOWNLOAD
    try:
        inside(folder, name)
    except OutsideError:
        return True
    return False
