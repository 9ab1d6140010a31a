"""Parameters of datasets, backbones, strategies and views: their type, default and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

LATER: Final = "later"
"""Marks a parameter of a class that came after runs were published: `Annotated[float, LATER]`."""

Parameters = dict[str, Any]
"""Parameters with their values, by name. Each plugin chooses the names and types of its own."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy or backbone.

    Attributes:
        default: its value where nobody gives one.
        help: a line for listings.
        type: what it must be, such as `int` or `tuple[int, ...]`; None: what the default is.
        later: whether runs were published before there was this parameter. Then its default means
            what they did, and it is not recorded at its default, so that their ids stay.
    """

    default: Any
    help: str = ""
    type: Any = None
    later: bool = False

    @property
    def kind(self) -> Any:
        """The type of its values, the default's included."""
        if self.type is not None:
            return self.type
        if isinstance(self.default, tuple):
            element: Any = type(self.default[0]) if self.default else str
            return tuple[element, ...]
        return str if self.default is None else type(self.default)

    @property
    def wanted(self) -> str:
        """What fits, in words."""
        if self.default is not None:
            return f"a value like {as_text(self.default)}"
        if isinstance(self.kind, UnionType) or get_origin(self.kind) is Union:
            return " or ".join(_in_words(one) for one in get_args(self.kind))
        several = get_origin(self.kind) is tuple
        one = _in_words(get_args(self.kind)[0] if several else self.kind)
        return f"a list, each {one}," if several else one

    def parse(self, value: Any) -> Any:
        """Convert text from a command line to the parameter's type, or check a Python value.

        Raises:
            ValueError: `value` does not fit.
        """
        import numpy as np  # here: listings do without
        from pydantic import TypeAdapter

        if value is None:
            return self.default
        value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        several, kind = get_origin(self.kind) is tuple, self.kind
        if several and isinstance(value, str):
            value = [item.strip() for item in value.split(",")]
        if several and not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} is no list")
        one = TypeAdapter(get_args(kind)[0] if several else kind)
        converted = tuple(_converted(one, item) for item in (value if several else [value]))
        return converted if several else converted[0]


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return words.get(kind.__name__, str(kind.__name__))


def _converted(kind: Any, value: Any) -> Any:
    if isinstance(value, str):
        found = kind.validate_strings(value)
    else:
        found = kind.validate_python(value, strict=True)
    if isinstance(found, float) and not isfinite(found):
        raise ValueError(f"{found} is no finite number")
    if isinstance(found, str):
        found.encode()  # a UnicodeEncodeError is a ValueError
    return found


def as_text(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
