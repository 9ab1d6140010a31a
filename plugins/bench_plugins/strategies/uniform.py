"""The plain baseline: every prompt on the same few evenly spread draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bench_plugins.strategies.full import OneBlock


class Uniform(OneBlock):
    """Every prompt on the same few draws, spread evenly over all of them.

    Args:
        samples: draws per prompt, a sub-grid of the plan; None for 50, or all if there are fewer.
        draws: N, the draws of the plan.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "uniform",
        "summary": "every prompt on a few evenly spread draws",
    }

    def __init__(self, samples: int | None = None, draws: int = 500) -> None:
        super().__init__(draws)
        self.samples = min(50, draws) if samples is None else samples
        if not 1 <= self.samples <= draws:
            raise ValueError(f"samples must be between 1 and draws={draws}, got {samples}")
        self.settled = {"samples": self.samples}

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return powers of two below the number of draws."""
        return [{"samples": n} for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n < n_draws]
