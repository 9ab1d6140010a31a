"""`execute`: the engine, the store and the events of a run that is prepared."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided, Engine
from bench.contracts.strategy import Strategy
from bench.discovery.events import tell
from bench.discovery.loading import load_plugins
from bench.machine.environment import peak_memory
from bench.machine.speed import remember_speed
from bench.stats.metrics import summarize
from bench.store.decisions import read_decisions
from bench.store.documents import Manifest, Summary
from bench.store.folder import RunFolder, completed
from bench.store.records import make_record


class Executable(Protocol):
    """What `execute` needs of a run, whether a model or a recording answers."""

    @property
    def manifest(self) -> Manifest:
        """What the run is."""

    @property
    def strategy(self) -> Strategy:
        """What decides its images."""

    @property
    def folder(self) -> Path:
        """Where it is stored."""

    @property
    def fresh(self) -> bool:
        """Whether to start over where it is stored already."""

    @property
    def save_errors(self) -> bool:
        """Whether to keep the error of every cell."""

    @property
    def started(self) -> float:
        """When preparing it began, on `time.perf_counter`'s clock."""

    @property
    def timed(self) -> bool:
        """Whether the time of an image means anything; of a recording it does not."""

    def samples(self, sample_ids: Sequence[str]) -> Iterator[Sample]:
        """Yield the images with these ids."""

    def check(self) -> None:
        """Make the last checks before anything is written or loaded."""

    def open_engine(self) -> Engine:
        """Load what answers the strategy."""


def execute(run: Executable) -> dict[str, Any]:
    """Score what is not decided yet, and return the summary, the object behind `--json`.

    Raises:
        UserError: the user can fix this; nothing was scored.
        StoreError: the disk is full; what was decided is kept.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    manifest, path = run.manifest, run.folder
    if not run.fresh and (earlier := completed(path, manifest, run.save_errors)):
        return {**earlier.plain(), "results_dir": str(path.resolve()), "resumed": "complete"}
    run.check()
    with RunFolder(path, manifest, run.fresh) as folder:
        outstanding = folder.outstanding(run.save_errors)
        engine = run.open_engine()
        listeners = load_plugins().manager
        total = len(folder.manifest.samples)
        done = total - len(outstanding)
        tell(listeners, "run_started", manifest=manifest.plain(), done=done, total=total)
        for decided, seconds in _timed(engine.score(run.samples(outstanding), run.strategy)):
            record = make_record(decided, seconds if run.timed else 0.0)
            folder.append(record, decided if run.save_errors else None, engine.problem.timesteps)
            tell(listeners, "sample_scored", record=record)
        summary = summarize(
            manifest,
            read_decisions(path, folder.manifest, top=True),
            total_seconds=time.perf_counter() - run.started,
            peak_memory=peak_memory(),
        )
        summary = summary.model_copy(update={"results_dir": str(path.resolve())})
        folder.finish(summary)
        _remember_speed(engine, summary)
        tell(listeners, "run_finished", summary=summary.plain())
    return summary.plain()


def _remember_speed(engine: Engine, summary: Summary) -> None:
    cost, backbone = summary.cost, summary.backbone
    if engine.device and cost.seconds and cost.seconds > 1:
        speed = cost.equivalents_per_image * summary.dataset.n_samples / cost.seconds
        remember_speed(backbone.name, engine.device, backbone.dtype, speed)


def _timed(decisions: Iterator[Decided]) -> Iterator[tuple[Decided, float]]:
    """Yield each decision with the seconds since the one before it, or since scoring began."""
    last = time.perf_counter()
    for decided in decisions:
        now = time.perf_counter()
        yield decided, now - last
        last = now
