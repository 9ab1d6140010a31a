"""The executor of workers: calls them, hands out images, and restarts or drops what ends.

Neither the driver nor the workers know Ray: `Processes` starts workers and carries the messages.
`dispatch` decides which worker scores which image, and what is done again. The driver alone opens
the store.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.errors import BenchError, BenchWarning, WorkersLostError
from bench.running.executors.dispatch import Dispatch, DispatchRules, ImageBlock, Loss
from bench.running.executors.job import job_of
from bench.running.executors.messages import (
    Answer,
    Ended,
    Fetch,
    Lacking,
    Opened,
    Processes,
    Refused,
    Report,
    WorkerProcess,
)
from bench.running.prepared import Prepared, run_samples
from bench.store.records import is_record, make_record

logger = logging.getLogger("bench.workers")
SPEEDS_EVERY = 10.0  # seconds between two log lines about the workers' speed
PATIENCE = 120.0  # seconds without a ready worker after which a warning says so


@dataclass
class Member:
    """One worker, as the driver sees it."""

    stage: str = "prepare"  # its last call; "prepared" and "idle": it waits for the next
    place: WorkerProcess | None = None  # None: not known yet


class Driver:
    """Scores with workers of `processes`, which are closed with the driver.

    Attributes:
        workers: by name, those that have not been given up.
        dispatch: which worker has which images; None before scoring.

    Raises:
        BenchError: no worker can take part; the first one's reason.
        WorkersLostError: the workers ended before one was ready.
    """

    device: str | None = None  # this process does not score: it has no speed to remember

    def __init__(self, run: Prepared, processes: Processes) -> None:
        self._run, self._processes = run, processes
        self.workers: dict[str, Member] = {}
        self.dispatch: Dispatch | None = None
        self._rules = DispatchRules.of(processes.count)
        self._deaths: Counter[str] = Counter()  # before scoring
        self._causes: list[BenchError] = []  # why workers cannot take part
        self._silent = False  # whether a worker was given up without a cause
        self._opened: Opened | None = None
        self._texts: tuple[str, Fetch] | None = None  # a worker with encoded prompts, and those
        self._memory: int | None = None
        self._since = self._logged = monotonic()
        try:
            self._job = replace(job_of(run), report_seconds=self._rules.block_seconds)
            for number in range(1, processes.count + 1):
                self._start(f"worker {number}")
            while self._opened is None:
                self._expect_workers()
                list(self._step())
        except BaseException:
            self.close()
            raise
        self.problem = self._opened.problem
        self.levels: Levels | None = self._opened.levels
        self.fitted: Mapping[str, Any] | None = self._opened.fitted

    @property
    def peak_memory(self) -> int | None:
        """The most memory that one worker used so far, in bytes."""
        return self._memory

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided.

        Raises:
            BenchError: every worker had to stop; the first one's reason.
            WorkersLostError: no worker is left; the same command resumes.
        """
        self.dispatch = dispatch = Dispatch(sample_ids, self.workers, self._rules)
        while dispatch.left:
            self._expect_workers()
            for name, member in self.workers.items():
                if member.stage == "idle":
                    self._feed(name, hungry=True)
            yield from self._step()
        self._log_speeds()

    def wait_for_all(self) -> None:
        """Wait until every worker has loaded; otherwise the first one begins alone."""
        while any(member.stage != "idle" for member in self.workers.values()):
            list(self._step())

    def close(self) -> None:
        """End the workers, and what was started for them."""
        self.workers = {}
        self._processes.close()

    def _start(self, name: str) -> None:
        self.workers[name] = Member()
        self._processes.start(name, self._job)
        self._processes.call(name, "prepare")

    def _expect_workers(self) -> None:
        if self.workers:
            return
        if self._causes and not self._silent:
            raise self._causes[0]
        raise WorkersLostError("No worker is left. The warnings above say why.")

    def _step(self) -> Iterator[Decided]:
        """Wait for answers, at most a second, and yield what they decide."""
        for name, answer in self._processes.answers():
            yield from self._answered(name, answer)
        now = monotonic()
        if now - self._logged >= SPEEDS_EVERY:
            self._logged = now
            self._log_speeds()
        placed = any(member.place for member in self.workers.values())
        if self._since and not placed and now - self._since >= PATIENCE:
            self._since = 0.0
            needs = self._processes.needs
            _warn(f"No worker is ready after {PATIENCE:.0f} s. Each needs {needs} that is free.")

    def _answered(self, name: str, answer: Answer) -> Iterator[Decided]:
        member = self.workers[name]
        if isinstance(answer, Refused):
            self._refused(name, answer)
        elif isinstance(answer, Ended):
            yield from self._lost(name, answer)
        elif isinstance(answer, WorkerProcess):
            member.place, member.stage = answer, "prepared"
            logger.info("%s is ready to load.", self._called(name))
            for difference in answer.differences:
                _warn(f"{self._called(name)}: {difference}.")
        elif isinstance(answer, Lacking):
            self._processes.call(name, "open", self._encoded())
        elif isinstance(answer, Opened):
            self._opened = self._opened or answer
            member.stage = "idle"
            logger.info("%s has loaded the model.", self._called(name))
        elif isinstance(answer, Report) and self.dispatch is not None:
            yield from self._reported(name, answer)
        else:
            reason = f"it returned a {type(answer).__name__}"
            yield from self._lost(name, Ended(reason, raised=True))
        # Workers load: one first, which encodes the prompts, and then all others.
        for name, member in self.workers.items():
            first = any(other.stage == "open" for other in self.workers.values())
            if member.stage == "prepared" and (self._opened is not None or not first):
                member.stage = "open"
                self._processes.call(name, "open", None, self._opened is None)

    def _encoded(self) -> Fetch | None:
        """Return the encoded prompts of a loaded worker; None: no such worker is left."""
        if self._texts is None:
            loaded = [n for n, member in self.workers.items() if member.stage in ("idle", "score")]
            if loaded:
                self._texts = loaded[0], self._processes.ask_for(loaded[0], "texts")
        return None if self._texts is None else self._texts[1]

    def _reported(self, name: str, report: Report) -> Iterator[Decided]:
        assert self.dispatch is not None
        if report.peak_memory is not None:
            self._memory = max(self._memory or 0, report.peak_memory)
        for decided in report.decided:
            if not self._is_sound(decided):
                reason = "it returned a decision that cannot be one"
                yield from self._lost(name, Ended(reason, raised=True))
                return
        by_id = {decided.sample.sample_id: decided for decided in report.decided}
        counted = self.dispatch.decided(name, tuple(by_id), monotonic())
        if isinstance(report.end, Refused):
            self._refused(name, report.end)
        elif report.end is not None:
            yield from self._lost(name, report.end)
        elif report.idle and self.dispatch.holds(name):
            yield from self._lost(name, Ended("it left images undecided"))
        else:
            self._feed(name, report.hungry)
        for sample_id in counted:
            yield by_id[sample_id]

    def _is_sound(self, decided: Any) -> bool:
        """Return whether a decision is of an image of the run, and can be recorded."""
        split, manifest = self._run.split, self._run.manifest
        assert split is not None and manifest is not None
        try:
            record = make_record(decided, 0.0)
            row = split.row_of[record["sample_id"]]
            blocks = [(len(r.prompts), len(r.draws), errors) for r, errors in decided.cells]
            fit = all(errors.shape == (rows, columns) for rows, columns, errors in blocks)
        except Exception:  # another type or another shape raises anything
            return False
        labelled = split.items is not None or record["label"] == split.labels[row]
        return fit and labelled and is_record(record, len(manifest.classes))

    def _feed(self, name: str, hungry: bool) -> None:
        """Hand a worker more images if it has room, and ask for its decisions."""
        assert self.dispatch is not None and self._run.split is not None
        member = self.workers[name]
        block = self.dispatch.give(name, monotonic()) if hungry else ImageBlock()
        if not self.dispatch.holds(name):
            member.stage = "idle"
            return
        member.stage = "score"
        contents = tuple(self._run.split.content(sample_id) for sample_id in block.ids)
        self._processes.call(name, "exchange", block, contents)

    def _lost(self, name: str, ended: Ended) -> Iterator[Decided]:
        """Restart a worker that ended; yield the images that ended too many workers as failed."""
        called = self._called(name)
        self._remove(name)
        if self.dispatch is None:
            self._deaths[name] += 1
            loss = Loss((), (), self._deaths[name] < self._rules.deaths)
        else:
            loss = self.dispatch.lost(name)
        then = "It is started again." if loss.restart else "It ended too often and is given up."
        again = len(loss.again)
        held = f" {again} image{'s' * (again != 1)} of it will be scored again." if again else ""
        _warn(f"{called} ended: {ended.reason}.{held} {then}")
        if loss.restart:
            self._start(name)
        elif ended.raised:
            self._causes.append(BenchError(f"{called}: unexpected {ended.reason}"))
        else:
            self._silent = True
        rules = self._rules
        for sample in run_samples(self._run, loss.failed):
            deaths = f"the worker that scored it ended {rules.together + rules.alone} times"
            yield Decided(sample, error=f"{deaths}, {rules.alone} times with this image alone")

    def _refused(self, name: str, refused: Refused) -> None:
        self._causes.append(refused.error(name))
        _warn(f"{self._causes[-1]} The run goes on without it.")
        self._remove(name)
        if self.dispatch is not None:
            self.dispatch.leave(name)

    def _remove(self, name: str) -> None:
        del self.workers[name]
        self._processes.end(name)
        if self._texts is not None and self._texts[0] == name:
            self._texts = None

    def _called(self, name: str) -> str:
        place = self.workers[name].place
        return f"{name} ({place})" if place else name

    def _log_speeds(self) -> None:
        if self.dispatch is None:
            return
        for name in self.workers:
            speed = self.dispatch.speed(name)
            rate = "no image yet" if speed is None else f"{speed:.2f} images/s"
            logger.info("%s: %s, holds %d", self._called(name), rate, self.dispatch.holds(name))


def _warn(message: str) -> None:
    warnings.warn(message, BenchWarning, stacklevel=3)
