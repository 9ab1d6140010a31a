"""What every registration says: the fields that all specs share, and its parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, ClassVar, Final, Literal, Union, get_args, get_origin, get_type_hints

from bench.errors import UserError, did_you_mean

LATER: Final = "later"
"""Marks a parameter of a class that came after runs were published: `Annotated[float, LATER]`."""

Parameters = dict[str, Any]
"""Parameters with their values, by name. Each plugin chooses the names and types of its own."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy or backbone.

    Attributes:
        default: the value unless the user sets one.
        help: a line for listings.
        type: the type of a value, such as `int` or `tuple[int, ...]`; None: the default's.
        later: whether runs were published before the parameter existed. Then its default is their
            behaviour, and is not recorded, so that their ids stay.
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
        """The values that fit, in words."""
        if self.default is not None:
            return f"a value like {as_text(self.default)}"
        if isinstance(self.kind, UnionType) or get_origin(self.kind) is Union:
            return " or ".join(map(_in_words, get_args(self.kind)))
        several = get_origin(self.kind) is tuple
        value = _in_words(get_args(self.kind)[0] if several else self.kind)
        return f"a list, each {value}," if several else value

    def parse(self, value: Any) -> Any:
        """Convert text from a command line to the parameter's type, or check a Python value.

        Raises:
            ValueError: `value` does not fit.
        """
        import numpy as np  # here: listings need neither
        from pydantic import TypeAdapter

        if value is None:
            return self.default
        value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        several, kind = get_origin(self.kind) is tuple, self.kind
        if several and isinstance(value, str):
            value = [item.strip() for item in value.split(",")]
        if several and not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} is not a list")
        adapter = TypeAdapter(get_args(kind)[0] if several else kind)
        converted = tuple(_converted(adapter, item) for item in (value if several else [value]))
        return converted if several else converted[0]


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return words.get(kind.__name__, str(kind.__name__))


def _converted(adapter: Any, value: Any) -> Any:
    if isinstance(value, str):
        converted = adapter.validate_strings(value)
    else:
        converted = adapter.validate_python(value, strict=True)
    if isinstance(converted, float) and not isfinite(converted):
        raise ValueError(f"{converted} is not a finite number")
    if isinstance(converted, str):
        converted.encode()  # a UnicodeEncodeError is a ValueError
    return converted


def as_text(value: Any) -> str:
    """Return a value as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The fields of every registration.

    Attributes:
        name: the word on the command line: lower case letters, digits, `.`, `_`, `-`.
        target: `"package.module:Class"`, imported on first use.
        summary: one line for listings.
        version: raise it when results change; it enters the identity of every run.
        extra: the pip extra that the target needs, if any, for the message when it is missing.
        parameters: name → default value or `Parameter`.
        owner: the plugin that registered it, for messages; set by the toolkit.

    Raises:
        ValueError: a field has another type or an invalid value.
    """

    kind: ClassVar[str]
    names: ClassVar[re.Pattern[str]] = _NAME

    name: str
    target: str
    summary: str = ""
    version: int = 1
    extra: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    owner: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ValueError(f"{self.kind} {self.name!r}: {problem}")
        parameters = {
            key: value if isinstance(value, Parameter) else Parameter(value)
            for key, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", parameters)

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the fields; a kind's own follow these."""
        types = _field_types(type(self))
        for declared in fields(self):
            value = getattr(self, declared.name)
            kind = types[declared.name]
            if not _fits(value, kind):
                wanted = kind if get_origin(kind) is Literal else declared.type
                yield (
                    f"{declared.name}={value!r} is not of the type"
                    f" {str(wanted).removeprefix('typing.')}"
                )
        if not self.names.fullmatch(self.name):
            yield "use lower case letters, digits, '.', '_' and '-' in a name"
        if not _TARGET.fullmatch(self.target):
            yield f"target {self.target!r} is not 'package.module:Class'"

    @property
    def label(self) -> str:
        """The name in messages, with the plugin."""
        return f"{self.kind} {self.name!r}" + (f" ({self.owner})" if self.owner else "")

    def is_default(self, name: str, value: Any) -> bool:
        """Return whether a stored parameter has its default; JSON has no tuples."""
        value = tuple(value) if isinstance(value, list) else value
        return name in self.parameters and bool(self.parameters[name].default == value)

    def resolve_parameters(self, overrides: Mapping[str, Any]) -> Parameters:
        """Return every parameter with its value: converted overrides over the defaults.

        Raises:
            UserError: a parameter is unknown, or its value does not convert.
        """
        values = {key: parameter.default for key, parameter in self.parameters.items()}
        for key, value in overrides.items():
            if key not in self.parameters:
                names = ", ".join(sorted(self.parameters)) or "none"
                raise UserError(
                    f"{self.kind} {self.name!r} has no parameter {key!r}."
                    f"{did_you_mean(key, self.parameters)} It has: {names}."
                )
            try:
                values[key] = self.parameters[key].parse(value)
            except (ValueError, TypeError, KeyError, OverflowError):
                raise UserError(
                    f"{self.kind} {self.name!r}: {key}={value!r} does not fit;"
                    f" {self.parameters[key].wanted} is wanted."
                ) from None
        return values


# Reading the annotations of a class takes longer than checking the values.
# Annotated, since mypy holds classes of unhashable objects to be unhashable, too.
_field_types: Callable[[type], dict[str, Any]] = cache(get_type_hints)


def _fits(value: Any, wanted: Any) -> bool:
    """Tell whether a value has a field's type, one of the few that specs use."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is UnionType:
        return any(_fits(value, kind) for kind in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(item, inner[1]) for key, item in value.items()
        )
    if wanted is Any:
        return True
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, int | float if wanted is float else wanted)
