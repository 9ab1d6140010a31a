"""Views of an image: each class with a `spec` in a module of this package."""

from collections.abc import Callable

from bench import hookimpl, register_modules


@hookimpl
def register_views(register: Callable[..., None]) -> None:
    """Register the views."""
    register_modules(register, __name__)
