"""The two sides of scoring a run, what is scored and what scores it; and the local executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided, Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.engine.asking import CheckedStrategy
from bench.machine.environment import peak_memory
from bench.store.documents import Manifest

Swept = tuple[Path, Sequence[str]]  # the folder of a full sweep, and ids of some of its images


@dataclass
class Executable(ABC):
    """A run that `execute` scores, whether a model or a recording answers."""

    manifest: Manifest
    strategy: CheckedStrategy
    folder: Path  # folder of its results
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    fresh: bool = False  # whether to start over instead of resuming
    save_errors: bool = False  # whether to keep the error of every cell
    timed: bool = True  # whether its seconds are a model's; those of a recording mean nothing
    sweep: Swept | None = None  # images whose decisions are taken over from a full sweep

    @abstractmethod
    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield the images with these ids."""

    def check(self) -> None:
        """Make the last checks before anything is written or loaded."""
        return None

    @abstractmethod
    def open_engine(self) -> Engine:
        """Load what answers the strategy."""


class Executor(Protocol):
    """Scores the images of a run somewhere; the caller stores what it yields.

    Attributes:
        problem: what every image asks.
        levels: the model's noise levels, where it has any.
        device: the kind of device whose speed may be remembered; None: no such one.
        fitted: what a backbone that learned reports of its fit.
    """

    problem: Problem
    levels: Levels | None
    device: str | None
    fitted: Mapping[str, Any] | None

    @property
    def peak_memory(self) -> int | None:
        """Largest use of one process so far in bytes; None: not known."""

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided, in any order."""

    def close(self) -> None:
        """End what it started, also where scoring was interrupted."""


OpenExecutor = Callable[[Executable], Executor]


class LocalExecutor:
    """Scores in this process."""

    def __init__(self, run: Executable) -> None:
        self._run, self._engine = run, run.open_engine()
        self.problem, self.levels = self._engine.problem, self._engine.levels
        self.device = self._engine.device
        self.fitted: Mapping[str, Any] | None = getattr(self._engine, "fitted", None)

    @property
    def peak_memory(self) -> int | None:
        """Largest use so far in bytes."""
        return peak_memory()

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)

    def close(self) -> None:
        """Do nothing: nothing was started."""
