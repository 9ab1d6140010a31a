"""The two sides of scoring a run, what is scored and what scores it; and the local executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided, Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.engine.asking import CheckedStrategy
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


class Executor(ABC):
    """Scores the images of a run somewhere; the caller stores what it yields."""

    problem: Problem  # question of every image
    levels: Levels | None = None  # noise levels of the model, where it has any
    fitted: Mapping[str, Any] | None = None  # report of a backbone that learned on its fit
    device: str | None = None  # kind of device whose speed may be remembered; None: no such one
    peak_memory: int | None = None  # largest use of one other process so far, in bytes

    @abstractmethod
    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided, in any order."""

    def close(self) -> None:
        """End what it started, also where scoring was interrupted."""
        return None


OpenExecutor = Callable[[Executable], Executor]


class LocalExecutor(Executor):
    """Scores in this process."""

    def __init__(self, run: Executable) -> None:
        self._run, self._engine = run, run.open_engine()
        self.problem, self.levels = self._engine.problem, self._engine.levels
        self.device, self.fitted = self._engine.device, getattr(self._engine, "fitted", None)

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)
