"""The table of third-party plugins on the site, made from `plugins.toml`."""

from __future__ import annotations

import re
import tomllib
from html import escape
from pathlib import Path

PLUGINS = Path(__file__).with_name("plugins.toml")
FIELDS = {"summary", "adds", "address", "tested"}


def plugins(file: Path = PLUGINS) -> str:
    """Return the table of third-party plugins; ValueError for an entry that cannot be shown."""
    rows = []
    for name, entry in tomllib.loads(file.read_text("utf-8"))["plugins"].items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or {*entry} != FIELDS:
            raise ValueError(f"{name}: expected the name of a distribution, and {sorted(FIELDS)}")
        if not re.fullmatch(r"https://[\w./~-]+", entry["address"]):
            raise ValueError(f"{name}: its address must be a plain https address")
        texts = (entry["summary"], ", ".join(entry["adds"]), entry["tested"])
        cells = (escape(text).replace("|", "\\|") for text in texts)
        rows.append(f"| [{name}]({entry['address']}) | {' | '.join(cells)} |")
    head = ["| package | what it adds | kinds | tested with |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) if rows else "None is listed yet."
