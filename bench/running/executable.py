"""Base class of a run that `execute` can score, with a model or from recorded errors."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts, OpenRun
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

    def open(self) -> OpenRun:
        """Load the model or the recording in this process."""
        return _OpenHere(self)


class _OpenHere(OpenRun):
    def __init__(self, run: Executable) -> None:
        self._run, self._engine = run, run.open_engine()
        fitted, warnings = (getattr(self._engine, name, None) for name in ("fitted", "warnings"))
        self.device = self._engine.device
        self.model = ModelFacts(self._engine.problem, self._engine.levels, fitted, warnings or ())

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        return self._engine.score(self._run.samples(sample_ids), self._run.strategy)
