"""Formats of `bench export`: each class with a `spec` in a module of this package."""

from collections.abc import Callable

from bench import hookimpl, register_modules


@hookimpl
def register_exporters(register: Callable[..., None]) -> None:
    """Register the exporters."""
    register_modules(register, __name__)
