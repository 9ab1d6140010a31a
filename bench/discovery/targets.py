"""From a spec to the class behind it and to what that class makes, through the guard."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from bench.contracts.specs import Spec
from bench.discovery.guard import guard
from bench.errors import UserError


def load_target(spec: Spec) -> Any:
    """Import and return the class that the spec names.

    Raises:
        UserError: a package that it needs is not installed.
        PluginError: it cannot be imported.
    """
    module, _, attribute = spec.target.partition(":")
    with guard(spec.label, f"importing {spec.target}"):
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            hint = f" Install it with: pip install '{spec.extra}'." if spec.extra else ""
            raise UserError(
                f"{spec.label} needs the package {error.name!r}, which is not installed.{hint}"
            ) from error


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
