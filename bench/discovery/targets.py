"""From a spec to the class behind it and to what that class makes, through the guard."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from typing import Any

from bench.contracts.specs import Spec
from bench.discovery.guard import guard
from bench.errors import UserError


def load_target(spec: Spec) -> Any:
    """Import and return the class that the spec names.

    Raises:
        UserError: a package that it needs is not installed, or too old.
        PluginError: it cannot be imported.
    """
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
    """Refuse a library that is older than a backbone says it needs."""
    package, _, least = (getattr(spec, "requires", None) or "").partition(">=")
    if not least:
        return
    try:
        found = version(package.strip())
    except PackageNotFoundError:  # which importing the class says
        return
    if _numbers(found) < _numbers(least):
        raise UserError(
            f"{spec.label} needs {package.strip()} {least.strip()} or newer; {found} is installed."
        )


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (0, 42) of `0.42.dev0`."""
    return tuple(int(part) for part in takewhile(str.isdecimal, text.strip().split(".")))


def make(
    spec: Spec, *arguments: Any, passing: tuple[type[BaseException], ...] = (), **keywords: Any
) -> Any:
    """Return what the spec's class makes of the arguments.

    Args:
        spec: a dataset, a backbone or a strategy.
        arguments: for the class.
        passing: errors that the caller handles.
        keywords: for the class.

    Raises:
        PluginError: it raised something else.
    """
    target = load_target(spec)
    with guard(spec.label, f"{spec.target.partition(':')[2]}(…)", (UserError, *passing)):
        return target(*arguments, **keywords)
