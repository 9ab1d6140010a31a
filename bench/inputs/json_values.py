"""JSON that came with data: parsed strictly, and its values as the texts that a dataset needs."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from bench.errors import UserError, quoted
from bench.inputs.labels import is_utf8


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
    """Return a text or a whole number, such as a label or an id, as text.

    Args:
        value: of a JSON field.
        what: the field's name.
        at: the file and the record, for messages.

    Raises:
        UserError: it is neither.
    """
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{at} the {what} is {quoted(value)}; a text or a whole number is wanted.")
    return text_of(value, what, at)


def text_of(value: Any, what: str, at: str) -> str:
    """Return any value as text: a text as it is, none as an empty one, all else as JSON.

    Raises:
        UserError: it has half of a surrogate pair, which no file can hold.
    """
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    if not is_utf8(text):
        raise UserError(f"{at} the {what} {quoted(text)} is not Unicode text.")
    return text
