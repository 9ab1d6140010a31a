"""From a spec to its class, with the contract's defaults, and to what the class makes.

What a class or an object *declares* decides about defaults: a property is not evaluated, which may
load a network.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import getattr_static, unwrap
from itertools import takewhile
from typing import Any

from bench.contracts.specs import Spec
from bench.discovery.guard import guard
from bench.errors import UserError


def load_target(spec: Spec) -> Any:
    """Import and return the class of a spec; UserError: a package is missing; else PluginError."""
    _check_version(spec)
    module, _, attribute = spec.target.partition(":")
    with guard(spec.label, f"importing {spec.target}"):
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            hint = f" Install it with: pip install '{spec.extra}'." if spec.extra else ""
            raise UserError(
                f"{spec.label} needs the package {error.name!r}, which is not installed.{hint}"
            ) from error


def _check_version(spec: Spec) -> None:
    """Refuse a library that is older than a backbone needs."""
    package, _, least = (getattr(spec, "requires", None) or "").replace(" ", "").partition(">=")
    with suppress(PackageNotFoundError):  # importing the class fails with the better message
        if least and _numbers(installed := version(package)) < _numbers(least):
            raise UserError(
                f"{spec.label} needs {package} {least} or newer; {installed} is installed."
            )


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (0, 42) of `0.42.dev0`."""
    return tuple(int(part) for part in takewhile(str.isdecimal, text.strip().split(".")))


def make(
    spec: Spec, *arguments: Any, passing: tuple[type[BaseException], ...] = (), **keywords: Any
) -> Any:
    """Return the spec's class called with arguments; a PluginError for errors but `passing`."""
    target = load_target(spec)
    with guard(spec.label, f"{spec.target.partition(':')[2]}(…)", (UserError, *passing)):
        return target(*arguments, **keywords)


def offers(thing: object, default: Callable[..., Any]) -> bool:
    """Return whether a thing has a method of its own in place of `default`, the contract's."""
    method = getattr_static(thing, default.__name__, None)
    return method is not None and unwrap(method) is not default


def with_defaults(thing: object, base: type) -> Any:
    """Return the object or class with every member of the contract's base; None is no member."""
    if isinstance(thing, base) or (isinstance(thing, type) and issubclass(thing, base)):
        return thing
    return _Adapted(thing, base)


class _Adapted:
    """A duck-typed class or object in front of the defaults of a base."""

    def __init__(self, thing: object, base: type) -> None:
        self._thing, self._base = thing, base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # in no contract, and not set yet while an object is unpickled
            raise AttributeError(name)
        if getattr_static(self._thing, name, None) is not None:
            return getattr(self._thing, name)
        default = getattr_static(self._base, name, self)  # which may be None
        if default is self:
            return getattr(self._thing, name)
        return default.__get__(self, type(self)) if hasattr(default, "__get__") else default
