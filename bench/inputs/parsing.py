"""Strict, bounded parsers for what users write: tables, lists, JSON and ranges of file names.

Nothing in a table is dropped or becomes something else: a line has as many fields as the first, a
cell is a text or a whole number, and only line feeds and carriage returns end a line.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import UserError, did_you_mean, quoted, refusing
from bench.machine.files import LINES, has_control, is_utf8, path_exists, read_text
from bench.machine.libraries import JsonValue

JSON_LINES = (".jsonl", ".ndjson")
JSON_EXAMPLE = '"file_name": "1.png", "label": "cat"'
MAX_COLUMNS = 1_000
MAX_FILES_OF_PATTERN = 1_000_000
Lines = Iterator[tuple[int, dict[str, str]]]  # number and row of each line


def read_text_file(file: Path) -> str:
    """Return the text of a file. Raises UserError if it cannot be read or is not UTF-8."""
    try:
        return read_text(file)
    except FileNotFoundError:
        raise UserError(f"There is no file {file}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a text file in UTF-8: {error}.") from None


def read_lines(file: Path, what: str) -> list[tuple[str, str]]:
    """Return the non-empty lines of a text file, stripped, each with its place, `FILE:LINE`.

    Raises UserError if it cannot be read, or a line, which is a `what`, has control characters.
    """
    lines = enumerate(StringIO(read_text_file(file), newline=None), 1)
    places = ((f"{file}:{number}", line) for number, line in lines if line.strip())
    return [(at, strip_text(line, what, at)) for at, line in places]


def read_table(file: Path) -> tuple[list[str], Iterator[tuple[int, Mapping[str, JsonValue]]]]:
    """Return the columns of a CSV or JSON lines file, and lazily the number and row of each line.

    Raises UserError if it is neither (see `read_csv`), or has more than 1,000 columns.
    """
    if file.suffix.lower() not in JSON_LINES:
        return read_csv_file(file)
    text = read_text_file(file)
    head: dict[str, None] = {}
    for line, value in _parse_objects(file, text):
        head.update(dict.fromkeys(value))
        if len(head) > MAX_COLUMNS:
            raise UserError(
                f"{file}:{line}: more than {MAX_COLUMNS:,} different keys so far; all lines must"
                " have the same keys."
            )
    return list(head), _parse_objects(file, text)


def _parse_objects(file: Path, text: str) -> Iterator[tuple[int, dict[str, JsonValue]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = parse_json(content)
        except ValueError as error:
            raise UserError(f"{file}:{line}: this is not JSON: {str(error)[:200]}.") from None
        if not isinstance(value, dict):
            raise UserError(f"{file}:{line}: expected a JSON object, such as {{{JSON_EXAMPLE}}}.")
        yield line, value


def read_cell(row: Mapping[str, Any], column: str, at: str, required: bool = False) -> str:
    """Return a text or a whole number of a row as stripped text, empty if it is missing.

    Raises UserError if it is anything else, has control characters, or is empty but `required`.
    """
    value = row.get(column)
    text = "" if value is None else strip_text(convert_to_name(value, column, f"{at}:"), column, at)
    if required and not text:
        raise UserError(f"{at}: the column {column!r} is empty.")
    return text


def strip_text(text: str, what: str, at: str, allowed: str = "") -> str:
    """Strip white space (UserError if the text has control characters other than `allowed`)."""
    if has_control(text.strip(f" {LINES}"), allowed):
        raise UserError(f"{at}: the {what} {quoted(text)} has control characters.")
    return text.strip()


def read_csv_file(
    file: Path, required: Sequence[str] = (), others: Sequence[str] | None = None
) -> tuple[list[str], Lines]:
    """Return the columns and the lines of a file; see `read_csv`.

    Also raises UserError if a `required` column is missing, or one is neither required nor among
    `others`; None allows any others.
    """
    head, lines = read_csv(read_text_file(file), str(file))
    named = [*required, *(head if others is None else others)]
    for problem, names in (
        ("missing", [name for name in required if name not in head]),
        ("unknown", [name for name in head if name not in named]),
    ):
        if names:
            raise UserError(
                f"{file}:1: the column {quoted(names[0])} is {problem}; the first line must name"
                f" {', '.join([*required, *(others or ())])} (got {join_names(head)})."
            )
    return head, lines


def read_csv(text: str, where: str) -> tuple[list[str], Lines]:
    """Return the column names of a CSV text, and a lazy iterator over (line number, row).

    Raises UserError if the text is not CSV, a column occurs twice or there are more than 1,000, and
    while iterating, if a line has another number of columns.
    """
    rows = read_csv_rows(text, where)
    _, first = next(rows, (1, []))
    head = [name.strip() for name in first]
    if len(head) > MAX_COLUMNS:
        raise UserError(f"{where}:1: {len(head):,} columns; at most {MAX_COLUMNS:,} are read.")
    if twice := [name for name in head if head.count(name) > 1]:
        raise UserError(f"{where}:1: the column {quoted(twice[0])} occurs twice.")

    def lines() -> Lines:
        for number, values in rows:
            if len(values) != len(head):
                advice = " Quote a text that contains a comma." if len(values) > len(head) else ""
                raise UserError(
                    f"{where}:{number}: {len(values)} columns, but the first line names"
                    f" {len(head)}.{advice}"
                )
            yield number, dict(zip(head, values, strict=True))

    return head, lines()


def read_csv_rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and fields of each non-empty line of a CSV text (UserError if it is not)."""
    reader = csv.reader(StringIO(text, newline=""), strict=True, skipinitialspace=True)
    with refusing(f"{where} is not a CSV file: ", csv.Error):
        yield from ((reader.line_num, values) for values in reader if values)


def check_column(name: str, columns: Iterable[str], where: str) -> None:
    """Raise UserError, with the closest names, if a table has no column `name`."""
    columns = list(columns)
    if name not in columns:
        raise UserError(
            f"{where} has no column {quoted(name)}.{did_you_mean(name, columns)} Its columns:"
            f" {join_names(columns)}."
        )


def split_names(text: str) -> list[str]:
    """Return the names of a comma-separated list, stripped, without empty ones."""
    return [name for name in map(str.strip, text.split(",")) if name]


def join_names(names: Iterable[str]) -> str:
    """Join names for a message: shortened to 400 characters, control characters escaped."""
    return quoted(", ".join(names) or "none", 400)[1:-1]


def parse_json(text: str | bytes) -> Any:
    """Parse JSON (ValueError if invalid, nested too deeply, or with a repeated key or NaN)."""
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_reject_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique_keys(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in table if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} occurs twice")
    return table


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number in JSON")


def convert_to_name(value: Any, what: str, at: str) -> str:
    """Convert a text or a whole number to text (UserError for other types and lone surrogates)."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{at} the {what} is {quoted(value)}; expected a text or a whole number.")
    return convert_to_text(value, what, at)


def convert_to_text(value: Any, what: str, at: str) -> str:
    """Convert a value to text, JSON if it is none, "" for None (UserError for lone surrogates)."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
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
