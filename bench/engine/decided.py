"""What an engine yields of each image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data import Sample
from bench.strategy import Evaluate, Outcome, Problem, Strategy


@dataclass
class Decided:
    """One image's end: an outcome, or the reason why there is none.

    Attributes:
        sample: the image.
        outcome: None where it failed.
        error: a message where it failed.
        evaluations: cells evaluated.
        cells: every block asked for with its errors, float32 [prompts, draws], in order.
    """

    sample: Sample
    outcome: Outcome | None = None
    error: str | None = None
    evaluations: int = 0
    cells: list[tuple[Evaluate, NDArray[np.float32]]] = field(default_factory=list)


class Engine(Protocol):
    """The one seam that an executor has to offer: images in, decisions out, in any order."""

    problem: Problem
    device: str | None  # the kind of device, where speeds are worth remembering

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided."""
