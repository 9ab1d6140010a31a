"""Classes without the contract's base: they get its defaults, once, where a plugin enters.

What a class or an object *declares* decides: a property is not evaluated, which may load a network.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import getattr_static, unwrap
from typing import Any


def offers(thing: object, default: Callable[..., Any]) -> bool:
    """Return whether a class or an object has a method of its own in place of the contract's.

    Args:
        thing: a class or an object, with the contract's base or without.
        default: the base's method, such as `Denoiser.encode_null`.
    """
    method = getattr_static(thing, default.__name__, None)
    return method is not None and unwrap(method) is not default


def with_defaults(thing: object, base: type) -> Any:
    """Return an object, or a class, that has every member of the contract's base.

    Args:
        thing: an object or a class; None as a member counts as no member.
        base: the contract.
    """
    if isinstance(thing, base) or (isinstance(thing, type) and issubclass(thing, base)):
        return thing
    return _Adapted(thing, base)


class _Adapted:
    """A duck-typed class or object in front of the defaults of a base."""

    def __init__(self, thing: object, base: type) -> None:
        self._thing, self._base = thing, base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # none of a contract; not set yet where an object is unpickled
            raise AttributeError(name)
        if getattr_static(self._thing, name, None) is not None:
            return getattr(self._thing, name)
        default = getattr_static(self._base, name, self)  # which may be None
        if default is self:
            return getattr(self._thing, name)
        return default.__get__(self, type(self)) if hasattr(default, "__get__") else default
