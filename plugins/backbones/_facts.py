"""Declared facts of pipeline classes, one file for each: `pipelines/<class>.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

USUAL_SOURCE = {"target": "scheduler.step", "encoding": "__call__, output_type"}
FACTS_FOLDER = Path(__file__).with_name("pipelines")


@dataclass(frozen=True)
class Facts:
    """Facts that cannot be read from a pipeline.

    Most others are not needed: signs, scales of the time and packing are the pipeline's own code,
    and its normalisation of latents is learned.

    Attributes:
        levels: `flow` or `diffusion`: how its scheduler's config describes the noise levels.
        steps: number of steps for which the pipeline computes its shift; None: its default.
        times: `each`: one call takes a time for each sample; `one`: one time for all.
        call: keywords of its `__call__` that switch guidance off, and others that it needs.
        call_without_guidance: further keywords if the network has no guidance scale as an input.
        tokenizer: the tokenizer that limits the length of a text; None: that of the lowest limit.
        target: the output that its scheduler is given, in words.
        text: how texts become tokens, in words.
        encoding: how an image becomes a latent, in words.
        requires: the first version of diffusers that has the class, or the lowest supported.
        source: fact → its place in the `file` of diffusers; that of others: `USUAL_SOURCE`.
    """

    levels: str | None = None
    steps: int | None = None
    times: str = "each"
    call: Mapping[str, Any] = field(default_factory=dict)
    call_without_guidance: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    target: str = ""
    text: str = ""
    encoding: str = ""
    requires: str = "diffusers>=0.33"
    source: Mapping[str, str] = field(default_factory=dict)


@lru_cache
def facts_of(name: str) -> Facts | None:
    """Return the facts of a class of diffusers; None: there are none."""
    path = FACTS_FOLDER / f"{name}.toml"
    if not path.is_file():
        return None
    stated = tomllib.loads(path.read_text("utf-8"))
    return Facts(**{**stated, "source": {**USUAL_SOURCE, **stated["source"]}})
