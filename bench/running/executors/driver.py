"""The executor of workers: calls them, hands out images, and restarts or drops what ends.

Neither the driver nor the workers know Ray: `Processes` starts workers and carries the messages.
`dispatch` decides which worker scores which image, and what is done again. The driver alone opens
the store.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from bench.contracts.decision import Decided
from bench.contracts.levels import Levels
from bench.errors import BenchError, WorkersLostError, warn_user
from bench.running.executors.dispatch import Dispatch, DispatchRules, Loss
from bench.running.executors.job import job_of
from bench.running.executors.messages import (
    Answer,
    Ended,
    Opened,
    Processes,
    Refused,
    Report,
    WorkerProcess,
)
from bench.running.prepared import Prepared, run_samples
from bench.store.records import is_record, make_record

logger = logging.getLogger("bench.workers")
IN_FLIGHT = 2  # blocks of a worker: the next one is there before it is needed
SPEEDS_EVERY = 10.0  # seconds between two log lines about the workers' speed
PATIENCE = 120.0  # seconds without a ready worker after which a warning says so


@dataclass
class Member:
    """One worker, as the driver sees it."""

    stage: str = "prepare"  # its last call but `score`; "prepared" and "ready": it has returned
    place: WorkerProcess | None = None  # None: not known yet
    blocks: int = 0  # number in flight


class Driver:
    """Scores with workers of `processes`, which are closed with the driver.

    Attributes:
        workers: by name, those that have not been given up.
        dispatch: which worker has which images; None before scoring.
        peak_memory: the most memory that one worker used so far, in bytes.

    Raises:
        BenchError: no worker can take part; the first one's reason.
        WorkersLostError: the workers ended before one was ready.
    """

    device: str | None = None  # this process does not score: it has no speed to remember
    peak_memory: int | None = None

    def __init__(self, run: Prepared, processes: Processes) -> None:
        self._run, self._processes = run, processes
        self.workers: dict[str, Member] = {}
        self.dispatch: Dispatch | None = None
        self._rules = DispatchRules.of(processes.count)
        self._starts: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()  # before scoring
        self._causes: list[BenchError] = []  # why workers cannot take part
        self._silent = False  # whether a worker was given up without a cause
        self._opened: Opened | None = None
        self._since = self._logged = monotonic()
        try:
            self._job = job_of(run)
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

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided.

        Raises:
            BenchError: every worker had to stop; the first one's reason.
            WorkersLostError: no worker is left; the same command resumes.
        """
        self.dispatch = Dispatch(sample_ids, self.workers, self._rules)
        while self.dispatch.left:
            self._expect_workers()
            for name in self.workers:
                self._feed(name)
            yield from self._step()
        self._log_speeds()

    def wait_for_all(self) -> None:
        """Wait until every worker has loaded; otherwise the first one begins alone."""
        while any(member.stage != "ready" for member in self.workers.values()):
            list(self._step())

    def close(self) -> None:
        """End the workers, and what was started for them."""
        self.workers = {}
        self._processes.close()

    def _start(self, name: str) -> None:
        self._starts[name] += 1
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
            if name in self.workers:  # not given up by an earlier answer of the same moment
                yield from self._answered(name, answer)
        self._open_workers()
        now = monotonic()
        if now - self._logged >= SPEEDS_EVERY:
            self._logged = now
            self._log_speeds()
        placed = any(member.place for member in self.workers.values())
        if self._since and not placed and now - self._since >= PATIENCE:
            self._since = 0.0
            needs = self._processes.needs
            warn_user(
                f"No worker is ready after {PATIENCE:.0f} s. Each needs {needs} that is free."
            )

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
                warn_user(f"{self._called(name)}: {difference}.")
        elif isinstance(answer, Opened):
            self._opened, member.stage = self._opened or answer, "ready"
            logger.info("%s has loaded the model.", self._called(name))
        elif isinstance(answer, Report) and self.dispatch is not None:
            yield from self._reported(name, answer)
        else:
            reason = f"it returned a {type(answer).__name__}"
            yield from self._lost(name, Ended(reason, raised=True))

    def _open_workers(self) -> None:
        """Have workers load: one first, which encodes the prompts, and then all others."""
        stages = [member.stage for member in self.workers.values()]
        loaded = next((n for n, member in self.workers.items() if member.stage == "ready"), None)
        alone = "open" not in stages
        for name, member in self.workers.items():
            if member.stage == "prepared" and (loaded or alone):
                member.stage, alone = "open", False
                texts = self._processes.texts_of(loaded) if loaded else None
                self._processes.call(name, "open", texts)

    def _reported(self, name: str, report: Report) -> Iterator[Decided]:
        assert self.dispatch is not None
        member = self.workers[name]
        member.blocks -= 1
        self.peak_memory = max(self.peak_memory or 0, report.peak_memory or 0) or None
        if not all(map(self._is_sound, report.decided)):
            reason = "it returned a decision that cannot be one"
            yield from self._lost(name, Ended(reason, raised=True))
            return
        by_id = {decided.sample.sample_id: decided for decided in report.decided}
        counted = self.dispatch.decided(name, tuple(by_id), monotonic())
        if isinstance(report.end, Refused):
            self._refused(name, report.end)
        elif report.end is not None:
            yield from self._lost(name, report.end)
        else:
            self._feed(name)
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

    def _feed(self, name: str) -> None:
        """Hand a worker more images, or have it decide those that it holds."""
        assert self.dispatch is not None and self._run.split is not None
        member = self.workers[name]
        if member.stage != "ready":
            return
        while member.blocks < IN_FLIGHT and (ids := self.dispatch.give(name, monotonic())):
            member.blocks += 1
            contents = tuple(map(self._run.split.content, ids))
            self._processes.call(name, "score", ids, contents)
        if not member.blocks and self.dispatch.holds(name):
            member.blocks += 1
            self._processes.call(name, "score", (), ())

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
        # The number makes each warning its own: Python shows equal ones once.
        times = f" {self._starts[name]} times" if self._starts[name] > 1 else ""
        warn_user(f"{called} ended{times}: {ended.reason}.{held} {then}")
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
        warn_user(f"{self._causes[-1]} The run goes on without it.")
        self._remove(name)
        if self.dispatch is not None:
            self.dispatch.leave(name)

    def _remove(self, name: str) -> None:
        del self.workers[name]
        self._processes.end(name)

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
