"""Names of accelerate that it does not document, seen in 0.30 to 1.15."""

from collections.abc import Sequence
from typing import Any


def hooks_of(module: Any) -> Sequence[Any]:
    """Return the hooks of a module that accelerate runs around its forward; most move weights."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))


def own_forward(module: Any) -> Any:
    """Return the forward of a module below accelerate's hooks; None if there are none."""
    return getattr(module, "_old_forward", None) if getattr(module, "_hf_hook", None) else None
