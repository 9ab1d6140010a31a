"""Strategies: each decides which cells are evaluated, and when an image is decided.

Each is one module here, whose class says in `spec` how it is registered.
"""

from __future__ import annotations

from collections.abc import Callable

from bench import hookimpl, register_modules


@hookimpl
def register_strategies(register: Callable[..., None]) -> None:
    """Register the strategies."""
    register_modules(register, __name__)
