"""Check values against annotations: of specs, TOML files, backbones' facts, public functions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from inspect import signature
from math import isfinite
from os import PathLike
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from bench.errors import UserError, did_you_mean, quoted

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Bound:
    """The lower bound of a finite number, in `Annotated`."""

    words: Literal["above", "at least"]
    limit: float

    def holds(self, value: float) -> bool:
        """Return whether a number is finite and within the bound."""
        within = value > self.limit if self.words == "above" else value >= self.limit
        return within and isfinite(value)


Positive = Annotated[float, Bound("above", 0)]
PositiveInt = Annotated[int, Bound("at least", 1)]
_WORDS: dict[Any, str] = {
    **{int: "a whole number", float: "a number", bool: "true or false", str: "text"},
    **{NoneType: "None", PathLike: "a path", Callable: "a function"},
}

# Cached, because resolving annotations takes longer than checking values. The type is declared,
# because mypy takes classes with unhashable instances for unhashable.
annotations_of: Callable[[Any], Mapping[str, Any]] = cache(
    partial(get_type_hints, include_extras=True)
)


def described(kind: Any) -> str:
    """Return a type in words, for messages: `a list, each a whole number`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (UnionType, Union):
        return " or ".join(map(described, inner))
    if origin is Annotated:
        return f"{described(inner[0])} {inner[1].words} {inner[1].limit:g}"
    if origin in (tuple, list, Sequence):
        of = f" of {len(inner)}" if origin is tuple and inner[-1] is not ... else ""
        return f"a list{of}, each {described(inner[0])}"
    if origin is Mapping or is_typeddict(kind):
        return "a table"
    return _WORDS.get(origin or kind, getattr(kind, "__name__", str(kind)))


def unknown_key(key: str, keys: Iterable[str]) -> str:
    """Return a message about a key that is none of `keys`, with close matches."""
    keys = sorted(keys)
    return f"unknown key {key!r}.{did_you_mean(key, keys)} Possible keys: {', '.join(keys)}"


def mismatch(value: Any, kind: Any, name: str) -> str | None:
    """Return why a value does not have a type, without a full stop; None if it has.

    `name` is that of the value, for the message. A `list` must not be empty, which a `tuple` may
    be; a text is no list. It handles only the types that annotations of its callers use.
    """
    if is_typeddict(kind) and isinstance(value, Mapping):
        kinds = annotations_of(kind)
        if unknown := [key for key in value if key not in kinds]:
            return f"{name}: {unknown_key(unknown[0], kinds)}"
        wrong = (mismatch(item, kinds[key], f"{name}.{key}") for key, item in value.items())
        return next(filter(None, wrong), None)
    if get_origin(kind) is Mapping and isinstance(value, Mapping):
        of_key, of_item = get_args(kind)
        for key, item in value.items():
            wrong_key = mismatch(key, of_key, f"a key of {name}")
            if text := wrong_key or mismatch(item, of_item, f"{name}.{key}"):
                return text
        return None
    return None if _fits(value, kind) else f"{name} must be {described(kind)}, got {quoted(value)}"


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value has a type; tables fit only where `mismatch` has looked into them."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return any(mismatch(value, option, "") is None for option in inner)
    if origin is Annotated:
        return _fits(value, inner[0]) and inner[1].holds(value)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is Mapping or is_typeddict(kind):
        return False
    if origin in (tuple, list, Sequence):
        return isinstance(value, origin) and _all_fit(value, origin, inner)
    if origin is not None:
        return isinstance(value, origin)
    if isinstance(value, bool):
        return kind in (bool, Any)
    if kind is float:
        return isinstance(value, int | float)
    return kind is Any or isinstance(value, kind)


def _all_fit(values: Sequence[Any], origin: Any, inner: tuple[Any, ...]) -> bool:
    """Return whether each element has its type; a list must have one, and a text is no sequence."""
    if isinstance(values, str | bytes) or (origin is list and not values):
        return False
    kinds = inner if origin is tuple and inner[-1] is not ... else inner[:1] * len(values)
    items = zip(values, kinds, strict=False)
    return len(kinds) == len(values) and all(mismatch(*pair, "") is None for pair in items)


def checks_types(function: Callable[P, R]) -> Callable[P, R]:
    """Return a public function that checks its arguments against their annotations.

    It raises UserError, which names the parameter, for an argument of another type.
    """
    declared = signature(function)

    @wraps(function)
    def checked(*values: P.args, **named: P.kwargs) -> R:
        for name, value in declared.bind(*values, **named).arguments.items():
            if problem := mismatch(value, declared.parameters[name].annotation, name):
                raise UserError(f"{problem}.")
        return function(*values, **named)

    return checked
