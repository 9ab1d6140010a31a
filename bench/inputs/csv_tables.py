"""CSV tables that came with data: read strictly, with a limit on their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO

from bench.errors import UserError, quoted

MOST_COLUMNS = 1_000
Lines = Iterator[tuple[int, dict[str, str]]]


def read_csv(text: str, where: str) -> tuple[list[str], Lines]:
    """Return the names of a table's columns, and its other lines with their numbers, lazily.

    Only line feeds and carriage returns end a line: a vertical tab or a line separator is part of
    its field.

    Args:
        text: what is in the file.
        where: the file, for messages.

    Raises:
        UserError: it is no CSV, has more than 1,000 columns or one twice, or a line has another
            number of columns; the lines' errors when they are read.
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
