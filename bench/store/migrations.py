"""Manifests of earlier formats, which load for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MANIFEST_FORMAT = 1  # that is written today

Raw = Mapping[str, Any]


def _numbered(manifest: Raw) -> Raw:
    """Manifests of before the first release may have no format."""
    return {"format": 1, **manifest}


# Format → what makes the next one of a manifest's content. A step is added, and none is changed.
MIGRATIONS: dict[int, Callable[[Raw], Raw]] = {0: _numbered}


def migrated(manifest: Raw) -> Raw:
    """Return a manifest of any earlier format as today's."""
    known = manifest.get("format", 0)
    while isinstance(known, int) and known in MIGRATIONS:
        known, manifest = known + 1, {**MIGRATIONS[known](manifest), "format": known + 1}
    return manifest
