"""What is declared of pipeline classes: `pipelines/<class>.toml`, one file for each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

FACTS_FOLDER = Path(__file__).with_name("pipelines")


@dataclass(frozen=True)
class Facts:
    """What a pipeline does not tell of itself.

    Attributes:
        call: keywords of its `__call__`: what switches guidance off, and leaves captions as they
            are.
        guided: keywords that switch guidance on, under which it encodes its negative prompt; None:
            it has none, and no prompt is the empty text.
        levels: `flow` or `diffusion`: how its scheduler's config describes the noise levels.
        steps: number of steps for which the pipeline computes its shift.
        times: `each`: one call takes a time for each sample; `one`: one time for all.
        requires: the first version of diffusers that has the class.
        source: fact → where diffusers says so.
    """

    call: Mapping[str, Any] = field(default_factory=dict)
    guided: Mapping[str, Any] | None = None
    levels: str | None = None
    steps: int | None = None
    times: str = "each"
    requires: str | None = None
    source: Mapping[str, str] = field(default_factory=dict)


@lru_cache
def facts_of(name: str) -> Facts | None:
    """Return what is declared of a class of diffusers; None: nothing is."""
    path = FACTS_FOLDER / f"{name}.toml"
    return Facts(**tomllib.loads(path.read_text("utf-8"))) if path.is_file() else None


def declared() -> list[str]:
    """Return the classes of which something is declared."""
    return sorted(path.stem for path in FACTS_FOLDER.glob("*.toml"))
