"""What every registration says: the fields that all specs share, and the check of their types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from bench.contracts.parameters import Parameter as Parameter
from bench.contracts.parameters import Parameters
from bench.errors import UserError, did_you_mean

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every registration says.

    Attributes:
        name: the word on the command line: lower case letters, digits, `.`, `_`, `-`.
        target: `"package.module:Class"`, imported on first use.
        summary: one line for listings.
        version: raise it when results change; it enters the identity of every run.
        extra: the pip extra that the target needs, if any, for the message when it is missing.
        parameters: name → default value or `Parameter`.
        owner: the plugin that registered it, for messages; filled in by the toolkit.

    Raises:
        ValueError: a field is of another type, or makes no sense.
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
        types = get_type_hints(type(self))
        for declared in fields(self):
            value = getattr(self, declared.name)
            kind = types[declared.name]
            if not _fits(value, kind):
                wanted = kind if get_origin(kind) is Literal else declared.type
                raise ValueError(
                    f"{self.kind} {self.name!r}: {declared.name}={value!r} is not of the type"
                    f" {str(wanted).removeprefix('typing.')}"
                )
        if not self.names.fullmatch(self.name):
            raise ValueError(
                f"{self.kind} name {self.name!r}: use lower case letters, digits, '.', '_' and '-'"
            )
        if not _TARGET.fullmatch(self.target):
            raise ValueError(
                f"{self.kind} {self.name!r}: target {self.target!r} is not 'package.module:Class'"
            )
        parameters = {
            key: value if isinstance(value, Parameter) else Parameter(value)
            for key, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", parameters)

    @property
    def label(self) -> str:
        """What a message calls it, its plugin included."""
        return f"{self.kind} {self.name!r}" + (f" ({self.owner})" if self.owner else "")

    def resolve_parameters(self, given: Mapping[str, Any]) -> Parameters:
        """Return every parameter with its value: the given ones, converted, over the defaults.

        Raises:
            UserError: a parameter that is unknown or does not convert.
        """
        values = {key: parameter.default for key, parameter in self.parameters.items()}
        for key, value in given.items():
            if key not in self.parameters:
                known = ", ".join(sorted(self.parameters)) or "none"
                raise UserError(
                    f"{self.kind} {self.name!r} has no parameter {key!r}."
                    f"{did_you_mean(key, self.parameters)} It has: {known}."
                )
            try:
                values[key] = self.parameters[key].parse(value)
            except (ValueError, TypeError, KeyError, OverflowError):
                raise UserError(
                    f"{self.kind} {self.name!r}: {key}={value!r} does not fit;"
                    f" {self.parameters[key].wanted} is wanted."
                ) from None
        return values


def _fits(value: Any, wanted: Any) -> bool:
    """Tell whether a value is of a field's type, which is one of the few that specs use."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
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
