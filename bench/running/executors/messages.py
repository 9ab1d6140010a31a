"""Messages between a driver and its workers.

They contain names, settings and decisions, never models or datasets.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery.guard import one_line
from bench.errors import BenchError, PluginError, UserError, WorkersLostError

Texts = Mapping[str, NDArray[np.uint8]]  # encoded prompts: file name → content
Fetch = Callable[[], Texts]  # fetches the encoded prompts of another worker


@dataclass(frozen=True)
class Job:
    """What a worker needs to prepare the driver's run and to verify that it is the same."""

    settings: str  # `RunConfig` as JSON
    identity: str  # the run's identity as JSON
    folder: str  # working directory of the driver, to which paths are relative
    versions: Mapping[str, str]  # distribution → version, of the toolkit and the plugins in use
    code: Mapping[str, str]  # distribution → hash of its source files, for the same distributions
    packages: Mapping[str, str]  # library → version on the driver
    surveyed: tuple[str, bool]  # fingerprint of the images, and whether all of them are ordinary


@dataclass(frozen=True)
class WorkerProcess:
    """The process of a worker that has prepared a run, by default this process."""

    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    differences: tuple[str, ...] = ()  # from the driver's versions, that cannot change numbers

    def __str__(self) -> str:
        return f"{self.host}, process {self.process}"


@dataclass(frozen=True)
class Ended:
    """Why a worker ended; the images that it held are not decided."""

    reason: str
    exit_code: int | None = None  # of the command if no worker is left; None for a killed process
    place: WorkerProcess | None = None  # the worker's, if the driver may not know it yet
    plugin: str | None = None  # the plugin that failed, if one did
    again: bool = True  # whether to restart the worker; False if it would fail again

    @staticmethod
    def of(error: BaseException, again: bool = False) -> Ended:
        """Return the message for an exception in this process.

        It contains no exception object, because the driver may lack the class. `again` applies to
        unexpected exceptions only: a BenchError would be raised again by a restarted worker.
        """
        here = WorkerProcess()
        if isinstance(error, PluginError):
            return Ended(error.problem, error.exit_code, here, error.who, again=False)
        if isinstance(error, BenchError):
            return Ended(str(error), error.exit_code, here, again=False)
        reason = f"unexpected {type(error).__name__}: {one_line(error)}"
        return Ended(reason, BenchError.exit_code, here, again=again)

    def error(self, worker: str) -> BenchError:
        """Return the error to raise if no worker is left."""
        if self.exit_code is None:
            return WorkersLostError("No worker is left. The warnings above say why.")
        if self.plugin is not None:
            return PluginError(f"{worker}: {self.plugin}", self.reason)
        return (UserError if self.exit_code == 2 else BenchError)(f"{worker}: {self.reason}")


@dataclass(frozen=True)
class Opened:
    """What a worker reports of its loaded engine; the fields are those of `Executor`."""

    problem: Problem
    levels: Levels | None
    fitted: Mapping[str, Any] | None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """The decisions of a worker since its last report."""

    decided: tuple[Decided, ...] = ()  # without images
    end: Ended | None = None  # why the worker stopped; None if it is still running
    peak_memory: int | None = None  # in bytes, so far


Answer = WorkerProcess | Opened | Report | Ended
