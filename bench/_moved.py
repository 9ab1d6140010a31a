"""Old module names that plugins import: they still work, with a warning, until version 0.3."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module


def moved(old: str, new: str) -> None:
    """Make the module `old` another name of the module `new`."""
    warnings.warn(
        f"{old} has moved to {new}. The old name works until version 0.3.",
        FutureWarning,  # shown by default, unlike DeprecationWarning
        stacklevel=3,
    )
    sys.modules[old] = import_module(new)
