"""Objects that are made once for a class of checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def once(owner: type, make: Callable[[], T]) -> T:
    """Return what `make` returned the first time for this class.

    pytest gives each check an instance of its own, and a model takes seconds to make.
    """
    if "_made" not in vars(owner):
        owner._made = make()  # type: ignore[attr-defined]
    made: T = vars(owner)["_made"]
    return made
