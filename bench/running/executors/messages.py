"""The messages of a driver and its workers, and what carries them.

They hold names, settings and decisions: no model and no dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery.guard import one_line
from bench.errors import BenchError, PluginError, UserError

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
    """The machine and the process of a worker that has prepared a run.

    Attributes:
        differences: versions that are not the driver's and cannot change numbers, in words.
    """

    host: str
    process: int
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.host}, process {self.process}"


@dataclass(frozen=True)
class Refused:
    """The reason why a worker cannot take part.

    Attributes:
        place: the worker's process.
        reason: what is wrong.
        plugin: the plugin that failed, where one did.
        exit_code: of the command, where this happens in its own process.
    """

    place: WorkerProcess
    reason: str
    plugin: str | None = None
    exit_code: int = 1

    @staticmethod
    def of(place: WorkerProcess, error: Exception) -> Refused:
        """Return the message of an error without its class, which the driver may not have."""
        if isinstance(error, PluginError):
            return Refused(place, error.problem, error.who, error.exit_code)
        if isinstance(error, BenchError):
            return Refused(place, str(error), None, error.exit_code)
        return Refused(place, f"unexpected {type(error).__name__}: {one_line(error)}")

    def error(self, worker: str) -> BenchError:
        """Return the error that ends the run where no worker can take part."""
        where = f"{worker} ({self.place})"
        if self.plugin is not None:
            return PluginError(f"{where}: {self.plugin}", self.reason)
        return (UserError if self.exit_code == 2 else BenchError)(f"{where}: {self.reason}")


@dataclass(frozen=True)
class Ended:
    """A worker ended, with all that it held: its code raised something, or its process ended."""

    reason: str
    raised: bool = False


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
        end: why it stopped; None: it did not. A worker that ended may be started again.
        peak_memory: its largest use so far in bytes.
    """

    decided: tuple[Decided, ...] = ()
    end: Refused | Ended | None = None
    peak_memory: int | None = None


Answer = WorkerProcess | Opened | Report | Refused | Ended


class Processes(Protocol):
    """Where workers run, and how they are called.

    Attributes:
        count: number of workers.
        needs: the resources of one worker, in words.
    """

    count: int
    needs: str

    def start(self, name: str, job: Job) -> None:
        """Start a worker; its first call waits until it has started."""

    def call(self, name: str, method: str, *arguments: object) -> None:
        """Call a worker's method; the reply is among the `answers`."""

    def texts_of(self, name: str) -> Fetch:
        """Return what fetches a worker's encoded prompts; of a worker that ended they are none."""

    def end(self, name: str) -> None:
        """End a worker, also one that has ended."""

    def answers(self) -> list[tuple[str, Answer]]:
        """Return names of workers with their replies, after waiting a second at most.

        Raises:
            WorkersLostError: what carries the answers has ended.
        """

    def close(self) -> None:
        """End all that was started."""
