"""The dataset contract: what a dataset plugin returns, and one labelled image of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One labelled image, still encoded."""

    sample_id: str
    label: int
    image: dict[str, Any]  # {"bytes", "path"}, as `datasets` stores it
