"""Messages between a driver and its workers.

They contain names, settings and decisions, never models or datasets.
"""

import json
import os
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.discovery.guard import one_line
from bench.errors import BenchError, PluginError, UserError, WorkersLostError
from bench.running.question import PreparedRun

Texts = Mapping[str, NDArray[np.uint8]]  # encoded prompts: file name → content
Fetch = Callable[[Collection[str]], Texts]
"""Waits until another worker has loaded the model, and returns its encoded prompts by file name."""
Block = tuple[tuple[str, str], ...]  # images: id, and the driver's `Split.hash_sample`


@dataclass(frozen=True)
class Job:
    """What a worker needs to prepare the driver's run and to verify that it is the same."""

    settings: str  # `RunConfig` as JSON
    identity: str  # the run's identity as JSON
    folder: str  # working directory of the driver, to which paths are relative
    code: Mapping[str, str]  # distribution → hash of its source files: the toolkit, plugins in use
    packages: Mapping[str, str]  # library → version on the driver
    surveyed: tuple[str, bool]  # fingerprint of the images, and whether all of them are ordinary

    @classmethod
    def of(cls, run: PreparedRun) -> Self:
        """Return the job of a run."""
        changes = {
            **{"executor": "local", "workers": None, "ray_address": None, "fresh": False},
            **{"shard": None, "dtype": run.dtype},
        }
        # A worker may have no access to the calibration of a risk.
        config, environment = run.without_risk(), run.manifest.environment
        return cls(
            settings=config.model_copy(update=changes).model_dump_json(),
            identity=json.dumps(run.manifest.identity.plain()),
            folder=str(Path.cwd()),
            code=environment["code"],
            packages=environment["packages"],
            surveyed=(run.split.fingerprint, run.split.decoding is None),
        )


@dataclass(frozen=True)
class WorkerProcess:
    """The process of a worker that has prepared a run, by default this process."""

    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)

    def __str__(self) -> str:
        return f"{self.host}, process {self.process}"


@dataclass(frozen=True)
class Report:
    """The decisions of a worker since its last report."""

    decided: tuple[Decided, ...]  # without images
    taken: bool  # whether the engine has taken the next block
    peak_memory: int | None = None  # in bytes, so far


@dataclass(frozen=True)
class Ended:
    """Why a worker ended; the images that it held are not decided."""

    reason: str
    kind: type[BenchError] = WorkersLostError  # of the error if no worker is left
    place: WorkerProcess | None = None  # the worker's, if the driver may not know it yet
    again: bool = True  # whether to restart the worker; False if it would fail again

    @classmethod
    def of(cls, error: BaseException, again: bool = False) -> Self:
        """Return the message for an exception in this process.

        It contains no exception object, because the driver may lack the class. `again` applies to
        unexpected exceptions only: a BenchError would be raised again by a restarted worker.
        """
        kinds = (kind for kind in (PluginError, UserError, BenchError) if isinstance(error, kind))
        if kind := next(kinds, None):
            return cls(str(error), kind, WorkerProcess(), again=False)
        reason = f"unexpected {type(error).__name__}: {one_line(error)}"
        return cls(reason, BenchError, WorkerProcess(), again=again)

    def error(self, worker: str) -> BenchError:
        """Return the error to raise if no worker is left."""
        if self.kind is WorkersLostError:
            return WorkersLostError("No worker is left. The warnings above say why.")
        if self.kind is PluginError:
            return PluginError(worker, self.reason)
        return self.kind(f"{worker}: {self.reason}")


Answer = WorkerProcess | ModelFacts | Report | Ended
