"""CSV, JSON and ranges of file names that came with data: read strictly, with limits."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import UserError, did_you_mean, quoted
from bench.machine.files import is_utf8, path_exists, read_text

MOST_COLUMNS = 1_000
Lines = Iterator[tuple[int, dict[str, str]]]
MOST_SHARDS = 1_000_000  # that a pattern may mean


def read_text_file(file: Path) -> str:
    """Return the text of a file; `UserError`: it cannot be read, or is not UTF-8."""
    try:
        return read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a text file in UTF-8: {error}.") from None


def read_csv_file(file: Path) -> tuple[list[str], Lines]:
    """Return the columns and the lines of a file; see `read_csv` (UserError)."""
    return read_csv(read_text_file(file), str(file))


def read_csv(text: str, where: str) -> tuple[list[str], Lines]:
    """Return the names of a table's columns, and its other lines with their numbers, lazily.

    Only line feeds and carriage returns end a line: a vertical tab or a line separator is part of
    its field. A UserError for what is no CSV, more than 1,000 columns or one twice, and, when it is
    read, for a line with another number of columns.
    """
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"{where} is not a CSV file: {error}.") from None
    if len(head) > MOST_COLUMNS:
        raise UserError(f"{where}:1: {len(head):,} columns; at most {MOST_COLUMNS:,} are read.")
    twice = next((name for name in head if head.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}:1: the column {quoted(twice)} occurs twice.")

    def lines() -> Lines:
        try:
            for values in reader:
                if values and len(values) != len(head):
                    raise UserError(
                        f"{where}:{reader.line_num}: {len(values)} columns, and the first line"
                        f" names {len(head)}."
                    )
                if values:
                    yield reader.line_num, dict(zip(head, values, strict=True))
        except csv.Error as error:
            raise UserError(f"{where} is not a CSV file: {error}.") from None

    return head, lines()


def check_column(name: str, columns: Iterable[str], where: str) -> None:
    """Refuse a table without the column `name` (UserError)."""
    columns = list(columns)
    if name not in columns:
        raise UserError(
            f"{where} has no column {quoted(name)}.{did_you_mean(name, columns)} Its columns:"
            f" {in_words(columns)}."
        )


def in_words(names: Iterable[str]) -> str:
    """Return names that came with data for a message, without control characters."""
    return quoted(", ".join(names) or "none", 400)[1:-1]


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: it is not JSON, is nested too deeply, has two values of one key, or a number
            that JSON does not have.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in table if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} occurs twice")
    return table


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def name_of(value: Any, what: str, at: str) -> str:
    """Return a text or a whole number, such as a label or an id, as text (UserError)."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{at} the {what} is {quoted(value)}; expected a text or a whole number.")
    return text_of(value, what, at)


def text_of(value: Any, what: str, at: str) -> str:
    """Return a text as it is, None as an empty one, all else as JSON (UserError: surrogates)."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    if not is_utf8(text):
        raise UserError(f"{at} the {what} {quoted(text)} is not Unicode text.")
    return text


def expand(pattern: str) -> list[Path]:
    """Return the files of `shard-{000..031}.tar`, or of a name without braces (UserError)."""
    bounds = re.fullmatch(r"([^{}]*)\{(\d{1,18})\.\.(\d{1,18})\}([^{}]*)", pattern)
    names = [pattern]
    if bounds is not None:
        before, first, last, after = bounds.groups()
        if not int(first) <= int(last) < int(first) + MOST_SHARDS:
            raise UserError(f"{quoted(pattern)} is not a range of files; write it as {{000..031}}.")
        width = len(first) if first.startswith("0") else 0
        names = [f"{before}{n:0{width}}{after}" for n in range(int(first), int(last) + 1)]
    for name in names:
        if not path_exists(name):
            of = f", of {quoted(pattern)}" if name != pattern else ""
            raise UserError(f"There is no file {quoted(name)}{of}.")
    return [Path(name) for name in names]
