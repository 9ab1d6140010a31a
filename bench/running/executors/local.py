"""The executor of this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.contracts.decision import Decided
from bench.machine.environment import peak_memory
from bench.running.executors.protocol import Executable


class LocalExecutor:
    """Scores in this process.

    Args:
        run: what is scored.
    """

    def __init__(self, run: Executable) -> None:
        self._run, self._engine = run, run.open_engine()
        self.problem, self.levels = self._engine.problem, self._engine.levels
        self.device = self._engine.device
        self.fitted: Mapping[str, Any] | None = getattr(self._engine, "fitted", None)

    @property
    def peak_memory(self) -> int | None:
        """The most memory used so far in bytes."""
        return peak_memory()

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)

    def close(self) -> None:
        """There is nothing to end."""
