"""Strategies: rules that choose which cells are evaluated and when an image is decided."""

from collections.abc import Callable

from bench import hookimpl, register_modules


@hookimpl
def register_strategies(register: Callable[..., None]) -> None:
    """Register the strategies."""
    register_modules(register, __name__)
