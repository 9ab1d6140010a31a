"""Messages between a driver and its workers.

They contain names, settings and decisions, never models or datasets.
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

Texts = Mapping[str, NDArray[np.uint8]]  # encoded prompts: file name → content
Fetch = Callable[[], Texts]  # fetches the encoded prompts of another worker


@dataclass(frozen=True)
class Job:
    """What a worker needs to prepare the driver's run and to verify that it is the same.

    Attributes:
        settings: `RunConfig` as JSON.
        identity: the run's identity as JSON.
        folder: working directory of the driver, to which paths are relative.
        versions: distribution → version, of the toolkit and of the plugins that the run uses.
        code: distribution → hash of its source files, for the same distributions.
        packages: library → version on the driver.
        surveyed: fingerprint of the images, and whether all of them are ordinary.
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
    """The process of a worker that has prepared a run, by default this process.

    Attributes:
        host: name of its machine.
        process: process id.
        differences: versions that differ from the driver's but cannot change numbers, as text.
    """

    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.host}, process {self.process}"


@dataclass(frozen=True)
class Ended:
    """Why a worker ended; the images that it held are not decided.

    Attributes:
        reason: what is wrong.
        exit_code: exit code of the command if no worker is left; None if the process was killed.
        place: the worker's process, if the driver may not know it yet.
        plugin: the plugin that failed, if one did.
        again: whether to restart the worker; False if it would fail again.
    """

    reason: str
    exit_code: int | None = None
    place: WorkerProcess | None = None
    plugin: str | None = None
    again: bool = True

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


@dataclass(frozen=True)
class Report:
    """The decisions of a worker since its last report.

    Attributes:
        decided: the decisions, without images.
        end: why the worker stopped; None if it is still running.
        peak_memory: peak memory of the worker so far, in bytes.
    """

    decided: tuple[Decided, ...] = ()
    end: Ended | None = None
    peak_memory: int | None = None


Answer = WorkerProcess | Opened | Report | Ended
