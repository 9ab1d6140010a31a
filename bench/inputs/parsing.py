"""Strict, bounded parsers for CSV, JSON and file-name ranges that come with data."""

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

MAX_COLUMNS = 1_000
Lines = Iterator[tuple[int, dict[str, str]]]
MAX_FILES_OF_PATTERN = 1_000_000


def read_text_file(file: Path) -> str:
    """Return the text of a file. Raises UserError if it cannot be read or is not UTF-8."""
    try:
        return read_text(file)
    except FileNotFoundError:
        raise UserError(f"There is no file {file}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a text file in UTF-8: {error}.") from None


def read_csv_file(file: Path) -> tuple[list[str], Lines]:
    """Return the columns and the lines of a file; see `read_csv`."""
    return read_csv(read_text_file(file), str(file))


def read_csv(text: str, where: str) -> tuple[list[str], Lines]:
    """Return the column names of a CSV text, and a lazy iterator over (line number, row).

    Only line feeds and carriage returns end a line; a vertical tab or a Unicode line separator is
    part of its field. Raises UserError if the text is not CSV, a column occurs twice or there are
    more than 1,000, and while iterating, if a line has another number of columns.
    """
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"{where} is not a CSV file: {error}.") from None
    if len(head) > MAX_COLUMNS:
        raise UserError(f"{where}:1: {len(head):,} columns; at most {MAX_COLUMNS:,} are read.")
    twice = next((name for name in head if head.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{where}:1: the column {quoted(twice)} occurs twice.")

    def lines() -> Lines:
        try:
            for values in reader:
                if values and len(values) != len(head):
                    raise UserError(
                        f"{where}:{reader.line_num}: {len(values)} columns, but the first line"
                        f" names {len(head)}."
                    )
                if values:
                    yield reader.line_num, dict(zip(head, values, strict=True))
        except csv.Error as error:
            raise UserError(f"{where} is not a CSV file: {error}.") from None

    return head, lines()


def check_column(name: str, columns: Iterable[str], where: str) -> None:
    """Raise UserError, with the closest names, if a table has no column `name`."""
    columns = list(columns)
    if name not in columns:
        raise UserError(
            f"{where} has no column {quoted(name)}.{did_you_mean(name, columns)} Its columns:"
            f" {join_names(columns)}."
        )


def join_names(names: Iterable[str]) -> str:
    """Join names for a message: shortened to 400 characters, control characters escaped."""
    return quoted(", ".join(names) or "none", 400)[1:-1]


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text.

    Raises ValueError if it is no JSON, is nested too deeply, repeats a key, or has NaN or Infinity.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in table if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} occurs twice")
    return table


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def convert_to_name(value: Any, what: str, at: str) -> str:
    """Convert a text or a whole number, such as a label or an id, to text.

    Raises UserError if it has another type, or is not valid Unicode.
    """
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{at} the {what} is {quoted(value)}; expected a text or a whole number.")
    return convert_to_text(value, what, at)


def convert_to_text(value: Any, what: str, at: str) -> str:
    """Convert a value to text: None to an empty one, anything but text to JSON.

    Raises UserError if it contains lone surrogates.
    """
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    if not is_utf8(text):
        raise UserError(f"{at} the {what} {quoted(text)} is not Unicode text.")
    return text


def expand_pattern(pattern: str) -> list[Path]:
    """Return the files of a pattern such as `shard-{000..031}.tar`, or of a plain name.

    Raises UserError if the pattern is invalid, or a file does not exist.
    """
    bounds = re.fullmatch(r"([^{}]*)\{(\d{1,18})\.\.(\d{1,18})\}([^{}]*)", pattern)
    names = [pattern]
    if bounds is not None:
        before, first, last, after = bounds.groups()
        if not int(first) <= int(last) < int(first) + MAX_FILES_OF_PATTERN:
            raise UserError(f"{quoted(pattern)} is not a range of files; write it as {{000..031}}.")
        width = len(first) if first.startswith("0") else 0
        names = [f"{before}{n:0{width}}{after}" for n in range(int(first), int(last) + 1)]
    for name in names:
        if not path_exists(name):
            of = f", of {quoted(pattern)}" if name != pattern else ""
            raise UserError(f"There is no file {quoted(name)}{of}.")
    return [Path(name) for name in names]
