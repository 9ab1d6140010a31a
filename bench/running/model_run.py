"""A prepared run whose errors a model computes, as `execute` takes it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from bench.contracts.dataset import Sample
from bench.contracts.decision import Engine
from bench.errors import BenchWarning
from bench.running.checks import check, check_precision
from bench.running.prepared import Prepared, run_samples
from bench.running.scorers import kind_of

if TYPE_CHECKING:
    from bench.running.scorers.kind import CheckedBackbone


class ModelRun:
    """A run whose errors a model computes; see `Executable`.

    `shared_backbone` is called when the run is scored, and returns the loaded backbone that several
    runs share, or None: the run loads its own.
    """

    timed = True  # its records hold the seconds that the model took

    def __init__(
        self,
        prepared: Prepared,
        shared_backbone: Callable[[], CheckedBackbone | None] = lambda: None,
    ) -> None:
        self.prepared, self.shared_backbone = prepared, shared_backbone
        self.manifest, self.folder = prepared.manifest, prepared.folder
        self.strategy, self.started = prepared.strategy, prepared.started
        self.fresh, self.save_errors = prepared.config.fresh, prepared.config.save_errors

    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield the images with these ids; each id is taken when its image is."""
        return run_samples(self.prepared, sample_ids)

    def check(self) -> None:
        """Refuse what only the backbone's class can tell; reads no weights."""
        check(self.prepared)

    def open_engine(self) -> Engine:
        """Load the backbone, unless it is shared, and return the engine that fits it."""
        kind = kind_of(self.prepared.resolved)
        engine = kind.open_engine(self.prepared, self.shared_backbone())
        if self.prepared.resolved.checks_dtype and (
            warning := check_precision(self.prepared, engine)
        ):
            warnings.warn(warning, BenchWarning, stacklevel=2)
        return engine
