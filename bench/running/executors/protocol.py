"""Base classes of a run to be scored and of what scores it, and the executor in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.engine.asking import CheckedStrategy, Engine
from bench.running.decider import Decider
from bench.store.documents import Manifest

Swept = tuple[Path, Sequence[str]]  # folder of a full sweep, and ids of some of its images


@dataclass(frozen=True, kw_only=True)
class Executable(ABC):
    """A run that `execute` can score, with a model or from recorded errors."""

    manifest: Manifest  # its samples are the images asked for
    decider: Decider
    folder: Path  # folder of its results
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    fresh: bool = False  # whether to start over instead of resuming
    save_errors: bool = False  # whether to keep the error of every cell
    timed: bool = True  # whether times are recorded; those of a replayed recording mean nothing
    swept: Swept | None = None  # images whose decisions are copied from a full sweep

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.decider.strategy

    @abstractmethod
    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield the images with these ids."""

    def check(self) -> None:
        """Validate the run before anything is written or loaded; raises UserError."""
        return None

    @abstractmethod
    def open_engine(self) -> Engine:
        """Load the model or the recording and return its engine."""


class Executor(ABC):
    """Scores the images of a run; the caller stores the decisions that it yields."""

    problem: Problem  # problem of every image
    levels: Levels | None = None  # noise levels of the model, if it has any
    fitted: Mapping[str, Any] | None = None  # report of the fit of a backbone that learns
    warnings: Sequence[str] = ()  # about the model
    device: str | None = None  # device type whose speed is to be remembered, if any
    peak_memory: int | None = None  # largest peak memory of any worker so far, in bytes

    @abstractmethod
    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided, in any order."""

    def close(self) -> None:
        """Stop what the executor started; safe if scoring was interrupted."""
        return None


class LocalExecutor(Executor):
    """Scores in this process, by default with an engine that the run opens."""

    def __init__(self, run: Executable, engine: Engine | None = None) -> None:
        self._run, self._engine = run, engine or run.open_engine()
        self.problem, self.levels = self._engine.problem, self._engine.levels
        self.device, self.fitted = self._engine.device, getattr(self._engine, "fitted", None)
        self.warnings = getattr(self._engine, "warnings", ())

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)
