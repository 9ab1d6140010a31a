"""Base class of all plugin registrations (specs), and their parameters."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, ClassVar, Final, Literal, get_args, get_origin

from bench.contracts.typed import annotations_of, described, mismatch
from bench.errors import UserError, did_you_mean

LATER: Final = "later"
"""Marks a parameter in a class's annotations as added after runs were published: `Annotated[float,
LATER]`; see `Parameter.later`."""

Parameters = dict[str, Any]
"""Values of parameters by name. Every plugin chooses its own names and types."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a dataset, backbone, strategy, metric or views.

    Attributes:
        help: a line for listings.
        type: type of the values, such as `int` or `tuple[int, ...]`; None to infer it from the
            default.
        later: whether the parameter was added after runs were published. If True, the default
            reproduces the earlier behaviour and is omitted from recorded parameters, so existing
            run ids stay valid.
    """

    default: Any
    help: str = ""
    type: Any = None
    later: bool = False

    @property
    def kind(self) -> Any:
        """Type of the values, inferred from the default if not declared."""
        if self.type is not None:
            return self.type
        if isinstance(self.default, tuple):
            element: Any = type(self.default[0]) if self.default else str
            return tuple[element, ...]
        return str if self.default is None else type(self.default)

    @property
    def wanted(self) -> str:
        """Description of the values that it accepts, for messages."""
        example = "" if self.default is None else as_text(self.default)
        if get_origin(self.kind) is Literal or not example:
            return described(self.kind)
        return f"a value like {example}"

    def parse(self, value: Any) -> Any:
        """Convert text from a command line, or a value of Python or TOML, to the parameter's type.

        A number means what its text means, so that `4`, `4.0` and `"4"` are one value everywhere.
        None stands for the default. Raises ValueError if the value is invalid or not finite.
        """
        import numpy as np  # imported late: listings need neither
        from pydantic import TypeAdapter

        if value is None:
            return self.default
        value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        if get_origin(self.kind) is not tuple:
            return _convert(TypeAdapter(self.kind), value)
        if not isinstance(value, list | tuple):
            value = [item.strip() for item in str(value).split(",")]
        adapter = TypeAdapter(get_args(self.kind)[0])
        return tuple(_convert(adapter, item) for item in value)


def _convert(adapter: Any, value: Any) -> Any:
    if isinstance(value, str | int | float):
        converted = adapter.validate_strings(str(value))
    else:
        converted = adapter.validate_python(value, strict=True)
    if isinstance(converted, float) and not isfinite(converted):
        raise ValueError(f"{converted} is not a finite number")
    if isinstance(converted, str):
        converted.encode()  # a UnicodeEncodeError is a ValueError
    return converted


def as_text(value: Any) -> str:
    """Format a value as `--set` accepts it."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The fields that all registrations have.

    Attributes:
        name: name on the command line: lower case letters, digits, `.`, `_`, `-`.
        target: `"package.module:Class"`, imported on first use.
        summary: one line for listings.
        version: increase it when results change; it is part of the identity of every run.
        extra: pip requirement that the target needs, for the message if a package is missing.
        parameters: name → default value or `Parameter`.
        owner: the plugin that registered it, for messages; set by the toolkit.

    Raises:
        ValueError: if a field has the wrong type or an invalid value.
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
        """Yield a message for each invalid field. Subclasses add their own checks after these."""
        types, values = annotations_of(type(self)), vars(self)
        is_set = [f.name for f in fields(self) if values[f.name] is not f.default]  # few are
        yield from filter(None, (mismatch(values[name], types[name], name) for name in is_set))
        if not self.names.fullmatch(self.name):
            yield "a name must consist of lower case letters, digits, '.', '_' and '-'"
        if not _TARGET.fullmatch(self.target):
            yield f"target must have the form 'package.module:Class', got {self.target!r}"

    @property
    def label(self) -> str:
        """Name in messages, with the name of the plugin."""
        return f"{self.kind} {self.name!r}" + (f" ({self.owner})" if self.owner else "")

    def is_default(self, name: str, value: Any) -> bool:
        """Return whether a stored value equals the default; JSON stores tuples as lists."""
        value = tuple(value) if isinstance(value, list) else value
        return name in self.parameters and bool(self.parameters[name].default == value)

    def recorded(self, values: Parameters) -> Parameters:
        """Return the parameters that identify a run: all but those added `later` at their default.

        So ids of runs that were made before a parameter was added stay valid.
        """
        later = {name: value.default for name, value in self.parameters.items() if value.later}
        return {n: v for n, v in values.items() if n not in later or v != later[n]}

    def resolve_parameters(self, overrides: Mapping[str, Any]) -> Parameters:
        """Return the values of all parameters: converted overrides, and defaults for the others.

        Raises UserError if a parameter is unknown, or its value cannot be converted.
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
                    f"{self.kind} {self.name!r}: invalid value {value!r} for {key!r}: expected"
                    f" {self.parameters[key].wanted}."
                ) from None
        return values
