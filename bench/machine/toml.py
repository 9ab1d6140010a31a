"""TOML files of users, packages and data: read in bounded time, with values of bounded depth."""

from __future__ import annotations

import re
import tomllib
from importlib.resources.abc import Traversable
from typing import Any

from bench.errors import UserError
from bench.machine.files import read_text

MOST_BYTES = 2_000_000  # twice the declaration of 22,000 classes
DEEPEST = 50  # tables and lists in each other
INT64 = range(-(2**63), 2**63)  # the integers of TOML

# The parser's time is cubic in the parts of a dotted key: 20,000 of them took 18 seconds.
_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST}}}")


def read_toml(file: Traversable, option: str = "") -> dict[str, Any]:
    """Return the content of a TOML file; `option` named it, for messages.

    Raises:
        UserError: it cannot be read, is not TOML or larger than 2 MB, or has a value that is nested
            more than 50 deep or an integer of more than 64 bits.
    """
    try:
        text = read_text(file, MOST_BYTES)
        if _LONG_KEY.search(text):
            raise ValueError(f"a key has more than {DEEPEST} parts")
        table = tomllib.loads(text)
        _check(table)
    except RecursionError:
        error: object = f"it is nested more than {DEEPEST} deep"
    except (OSError, ValueError) as wrong:  # int() raises ValueError on 5,000 digits
        error = wrong
    else:
        return table
    prefix = f"{option}: " if option else ""
    raise UserError(f"{prefix}{file} is not a TOML file: {str(error)[:300]}.")


def _check(table: dict[str, Any]) -> None:
    """Refuse values that could not be printed, hashed or stored."""
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        nested: list[Any] = []
        for value in level:
            nested += value.values() if isinstance(value, dict) else value
        if any(isinstance(value, int) and value not in INT64 for value in nested):
            raise ValueError("an integer has more than 64 bits")
        level = [value for value in nested if isinstance(value, dict | list)]
    if level:
        raise RecursionError
