"""What splits are called."""

from __future__ import annotations

SPLITS = ("test", "validation", "val", "valid", "train")  # in order of preference
