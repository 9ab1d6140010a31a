"""Names are text: how a name that somebody else chose is written into each kind of output.

A class, an image or a backbone may be called anything. Whatever it is called, it must not move a
terminal's cursor, become an element of a page, end a table or start a formula.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

# Control characters (with those of the C1 block, which also start escape sequences), marks that
# turn the direction of writing, separators of lines, and halves of surrogate pairs.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)
# Underscores inside a word are text in Markdown already.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_FORMULA = ("=", "+", "-", "@")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")
MAX_LINE_CHARACTERS = 2_000  # on a line of a message: a name may have a million


def visible(text: object) -> str:
    """Return a name on one line, with the characters that are not seen written as escapes."""
    return _HIDDEN.sub(_escaped, str(text))


def message(text: object) -> str:
    """Return a message for a terminal: its line breaks stay, and each line has an end."""
    return "\n".join(visible(_cut(line)) for line in str(text).split("\n"))


def html(text: object) -> str:
    """Return a name for HTML, in an element or in an attribute."""
    return escape(visible(text))


def markdown(text: object) -> str:
    """Return a name for a line or a table's cell of GitHub's Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", escape(visible(text), quote=False))


def csv_cell(value: Any) -> Any:
    """Return a value for a cell of CSV: text that a spreadsheet would compute gets a quote.

    A number with a sign is a number.
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    computed = text.startswith(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if computed else text


def csv_text(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV that is safe to open in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, head))
    writer.writerows(map(csv_cell, row) for row in rows)
    return out.getvalue()


def yaml_value(value: Any) -> Any:
    """Return a value for a YAML document with its texts, at any depth, made visible."""
    if isinstance(value, Mapping):
        return {yaml_value(key): yaml_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [yaml_value(item) for item in value]
    return visible(value) if isinstance(value, str) else value


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _cut(line: str) -> str:
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    return f"{line[:MAX_LINE_CHARACTERS]} … ({len(line):,} characters)"
