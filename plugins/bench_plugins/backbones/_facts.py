"""Facts about pipeline classes, declared in `pipelines/<class>.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.machine.precision import Half

USUAL_SOURCE = {"target": "scheduler.step", "encoding": "__call__, output_type"}
FACTS_FOLDER = Path(__file__).with_name("pipelines")


@dataclass(frozen=True)
class Facts:
    """Facts about a pipeline class that cannot be read from a pipeline.

    There are few: signs, time scaling and packing are the pipeline's own code, and its
    normalisation of latents is inferred.

    Attributes:
        levels: `flow` or `diffusion`: which kind of noise levels its scheduler's config describes.
        steps: number of steps for which the pipeline computes its shift; None for its default.
        times: `each` if one call accepts a time per sample; `one` if all must have the same time.
        call: keywords of its `__call__` that switch guidance off, and others that it needs.
        call_without_guidance: further keywords of a folder's network that is not
            guidance-distilled. A pipeline in memory keeps its defaults.
        half: half precision in which it runs on a GPU; None for that of its file, if it has one.
        tokenizer: the one that limits the length of a text; None for that with the lowest limit.
        target, text, encoding: documentation: what is predicted, how texts and images are encoded.
        requires: the first version of diffusers that has the class, or the lowest supported one.
        source: fact → where the `file` of diffusers shows it. `USUAL_SOURCE` has the defaults.
    """

    levels: str | None = None
    steps: int | None = None
    times: str = "each"
    call: Mapping[str, Any] = field(default_factory=dict)
    call_without_guidance: Mapping[str, Any] = field(default_factory=dict)
    half: Half | None = None
    tokenizer: str | None = None
    target: str = ""
    text: str = ""
    encoding: str = ""
    requires: str = "diffusers>=0.33"
    source: Mapping[str, str] = field(default_factory=dict)


@lru_cache
def facts_of(name: str) -> Facts | None:
    """Return the facts declared for a diffusers class, or None if there are none."""
    path = FACTS_FOLDER / f"{name}.toml"
    if not path.is_file():
        return None
    fields = tomllib.loads(path.read_text("utf-8"))
    return Facts(**{**fields, "source": {**USUAL_SOURCE, **fields["source"]}})
