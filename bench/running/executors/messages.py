"""The messages of a driver and its workers.

They hold names, settings and decisions: no model and no dataset.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery.guard import one_line
from bench.errors import BenchError, PluginError, UserError, WorkersLostError

Texts = Mapping[str, NDArray[np.uint8]]  # encoded prompts: a file's name → its bytes
Fetch = Callable[[], Texts]  # called where they are missing


@dataclass(frozen=True)
class Job:
    """A run, as its workers are told of it.

    Attributes:
        settings: `RunConfig` as JSON.
        identity: the run's identity as JSON.
        folder: the driver's, where relative paths begin.
        versions: distribution → version of the toolkit and of the plugins that the run uses.
        code: distribution → hash of the sources of the same.
        packages: library → version on the driver.
        surveyed: the fingerprint of all images, and whether all are ordinary.
    """

    settings: str
    identity: str
    folder: str
    versions: Mapping[str, str]
    code: Mapping[str, str]
    packages: Mapping[str, str]
    surveyed: tuple[str, bool]


@dataclass(frozen=True)
class WorkerProcess:
    """The machine and the process of a worker that has prepared a run; by default these.

    Attributes:
        differences: versions that are not the driver's and cannot change numbers, in words.
    """

    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.host}, process {self.process}"


@dataclass(frozen=True)
class Ended:
    """Why a worker ended, with all that it held.

    Attributes:
        reason: what is wrong.
        exit_code: of the command, if no worker is left; None: the process ended from outside.
        place: the worker's process, where the driver may not know it.
        plugin: the plugin that failed, where one did.
        again: whether to start the worker again; False: it would fail again.
    """

    reason: str
    exit_code: int | None = None
    place: WorkerProcess | None = None
    plugin: str | None = None
    again: bool = True

    @staticmethod
    def of(error: BaseException, again: bool = False) -> Ended:
        """Return the message of an error here without its class, which the driver may not have.

        `again` is for errors that nobody foresaw: the others explain what has to be changed.
        """
        here = WorkerProcess()
        if isinstance(error, PluginError):
            return Ended(error.problem, error.exit_code, here, error.who, again=False)
        if isinstance(error, BenchError):
            return Ended(str(error), error.exit_code, here, again=False)
        reason = f"unexpected {type(error).__name__}: {one_line(error)}"
        return Ended(reason, BenchError.exit_code, here, again=again)

    def error(self, worker: str) -> BenchError:
        """Return the error that ends the run where no worker is left."""
        if self.exit_code is None:
            return WorkersLostError("No worker is left. The warnings above say why.")
        if self.plugin is not None:
            return PluginError(f"{worker}: {self.plugin}", self.reason)
        return (UserError if self.exit_code == 2 else BenchError)(f"{worker}: {self.reason}")


@dataclass(frozen=True)
class Opened:
    """What the driver needs of a loaded engine; see `Executor`."""

    problem: Problem
    levels: Levels | None
    fitted: Mapping[str, Any] | None


@dataclass(frozen=True)
class Report:
    """What a worker has decided since its last report.

    Attributes:
        decided: the decisions, without the images.
        end: why it stopped; None: it did not.
        peak_memory: its largest use so far in bytes.
    """

    decided: tuple[Decided, ...] = ()
    end: Ended | None = None
    peak_memory: int | None = None


Answer = WorkerProcess | Opened | Report | Ended
