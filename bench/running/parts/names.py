"""Names of registered things, and paths in their place."""

from __future__ import annotations

from bench.discovery.registry import Registry, SpecT
from bench.errors import UserError
from bench.machine.files import is_there


def is_path(name: str) -> bool:
    """Tell a folder from a registered name: a value with a slash, or `.`, `..`."""
    return "/" in name or "\\" in name or name in (".", "..")


def registered(registry: Registry[SpecT], name: str) -> SpecT:
    """Return the spec of a name; where a file is called so, the error says how to name it."""
    try:
        return registry.get(name)
    except UserError as error:
        if is_there(name):
            raise UserError(
                f"{error}\nFor the folder or file of that name, write ./{name}"
            ) from None
        raise


def default_of(registry: Registry[SpecT]) -> SpecT:
    """Return the spec that is the default of its kind."""
    if (spec := registry.default()) is not None:
        return spec
    kind = registry.kind.kind
    raise UserError(f"No {kind} is marked as the default; name one with --{kind}.")
