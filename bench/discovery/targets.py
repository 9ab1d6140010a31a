"""Import the class of a spec, instantiate it, and add the defaults of the contract.

Whether a class or an object has a member of its own is determined without evaluating it, because a
property may load a network.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import getattr_static, unwrap
from itertools import takewhile
from typing import Any

from bench.contracts.specs import Spec
from bench.discovery.guard import guard
from bench.errors import UserError
from bench.machine.guest import silence_imported
from bench.machine.stages import stage


def load_target(spec: Spec) -> Any:
    """Import and return the class of a spec.

    Raises UserError if a package is missing or too old, PluginError if the import fails otherwise.
    """
    _check_version(spec)
    module, _, attribute = spec.target.partition(":")
    importing = stage(f"Importing {spec.kind} {spec.name}")
    with importing, guard(spec.label, f"importing {spec.target}"):
        try:
            target = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            hint = f" Install it with: pip install '{spec.extra}'." if spec.extra else ""
            raise UserError(
                f"{spec.label} needs the package {error.name!r}, which is not installed.{hint}"
            ) from error
    silence_imported()
    return target


def _check_version(spec: Spec) -> None:
    """Raise UserError if the library that a backbone `requires` is too old."""
    package, _, minimum = (getattr(spec, "requires", None) or "").replace(" ", "").partition(">=")
    if not minimum:
        return
    with suppress(PackageNotFoundError):  # importing the class fails with a better message
        installed = version(package)
        if _leading_numbers(installed) < _leading_numbers(minimum):
            raise UserError(
                f"{spec.label} needs {package} {minimum} or newer; {installed} is installed."
            )


def _leading_numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (0, 42) for `0.42.dev0`."""
    return tuple(int(part) for part in takewhile(str.isdecimal, text.strip().split(".")))


def make(spec: Spec, *arguments: Any, **keywords: Any) -> Any:
    """Instantiate the class of a spec; UserError as `load_target` and the class, or PluginError."""
    target = load_target(spec)
    with guard(spec.label, f"{spec.target.partition(':')[2]}(…)"):
        return target(*arguments, **keywords)


def make_from(spec: Spec, parameters: Mapping[str, Any]) -> Any:
    """Instantiate the class of a spec from its parameters; its ValueError becomes a UserError."""
    target = load_target(spec)
    with guard(spec.label, f"{spec.target.partition(':')[2]}(…)", refuses=True):
        return target(**parameters)


def offers(thing: object, default: Callable[..., Any]) -> bool:
    """Return whether a class or object has its own version of `default`, a contract's method."""
    method = getattr_static(thing, default.__name__, None)
    return method is not None and unwrap(method) is not default


def with_defaults(thing: object, base: type) -> Any:
    """Return the object or class, with members that are missing or None taken from `base`."""
    if isinstance(thing, base) or (isinstance(thing, type) and issubclass(thing, base)):
        return thing
    return _Adapted(thing, base)


class _Adapted:
    """A duck-typed class or object that falls back to the members of a base class."""

    def __init__(self, thing: object, base: type) -> None:
        self._thing, self._base = thing, base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # never part of a contract, and unset during unpickling
            raise AttributeError(name)
        if getattr_static(self._thing, name, None) is not None:
            return getattr(self._thing, name)
        default = getattr_static(self._base, name, self)  # `self` if absent; a default may be None
        if default is self or getattr(default, "__isabstractmethod__", False):
            return getattr(self._thing, name)
        return default.__get__(self, type(self)) if hasattr(default, "__get__") else default
