"""What an engine yields of each image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Evaluate, Linearise, Outcome, Problem, Reply, Session, Strategy


@dataclass
class Decided:
    """One image's end: an outcome, or the reason why there is none.

    Attributes:
        sample: the image.
        outcome: None where it failed.
        error: a message where it failed.
        evaluations: cells evaluated.
        linearisations: draws linearised.
        equivalents: what both cost, in evaluations.
        cells: every block asked for with its errors, float32 [prompts, draws], in order.
        linearised: every linearisation with its first-order errors, float32 [P, draws], in order.
    """

    sample: Sample
    outcome: Outcome | None = None
    error: str | None = None
    evaluations: int = 0
    linearisations: int = 0
    equivalents: float = 0.0
    cells: list[tuple[Evaluate, NDArray[np.float32]]] = field(default_factory=list)
    linearised: list[tuple[Linearise, NDArray[np.float32]]] = field(default_factory=list)

    def answer(
        self,
        session: Session,
        request: Evaluate | Linearise,
        values: NDArray[np.float32],
        linearisation_cost: float = 0.0,
    ) -> bool:
        """Account for `values` and hand them to the session, unless one is not finite.

        Args:
            session: the one that asked.
            request: what it asked for.
            values: float32 [prompts, draws].
            linearisation_cost: of one draw, in evaluations.

        Returns:
            Whether all are finite; else the image has failed, and `error` says why.
        """
        if isinstance(request, Linearise):
            kind, prompts = "first-order error", np.arange(len(values))
            cost = len(request.draws) * linearisation_cost
            self.linearisations += len(request.draws)
            self.linearised.append((request, values))
        else:
            kind, prompts = "error", request.prompts
            cost = float(values.size)
            self.evaluations += values.size
            self.cells.append((request, values))
        self.equivalents += cost
        if not np.isfinite(values).all():
            row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(values)))
            self.error = (
                f"the model's {kind} is {values[row, column]} for prompt {prompts[row]}"
                f" on draw {request.draws[column]}"
            )
            return False
        session.tell(request, Reply(values, cost))
        return True


class Engine(Protocol):
    """The one seam that an executor has to offer: images in, decisions out, in any order."""

    problem: Problem
    device: str | None  # the kind of device, where speeds are worth remembering

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided."""
