"""The executor with workers: it calls them, hands out images and restarts workers that end.

Neither the driver nor the workers depend on Ray: `Actors` starts workers and passes the messages.
`dispatch` decides which worker scores which images, and what is repeated. Only the driver's process
opens the store.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from bench.contracts.decision import Decided
from bench.errors import BenchError, WorkersLostError, warn_user
from bench.running.executors.dispatch import Dispatch, DispatchRules
from bench.running.executors.job import job_of
from bench.running.executors.messages import Answer, Ended, Opened, Report, WorkerProcess
from bench.running.executors.protocol import Executor
from bench.running.executors.ray import Actors
from bench.running.question import PreparedRun
from bench.store.records import is_record, make_record

logger = logging.getLogger("bench.workers")
IN_FLIGHT = 2  # blocks per worker, so that the next one is there before it is needed
SPEEDS_EVERY = 10.0  # seconds between log entries about the workers' speed
PATIENCE = 120.0  # seconds without a prepared worker before a warning


@dataclass
class Member:
    """State of one worker."""

    stage: str = "prepare"  # "prepare" or "open" while the call runs, then "prepared" or "ready"
    place: WorkerProcess | None = None  # None if not known yet
    blocks: int = 0  # number of blocks in flight


class Driver(Executor):
    """Scores with `actors` as workers; the constructor waits until the first has loaded.

    Raises BenchError if no worker can take part, for the reason of the first, and
    WorkersLostError if they ended before one was ready.
    """

    def __init__(self, run: PreparedRun, actors: Actors) -> None:
        self._run, self._actors = run, actors
        names = [f"worker {number}" for number in range(1, actors.count + 1)]
        self.workers: dict[str, Member] = {}
        self.dispatch = Dispatch((), names, DispatchRules.of(actors.count))
        self._starts: Counter[str] = Counter()
        self._given_up: list[BenchError] = []  # the error of each worker that was given up
        self._opened: Opened | None = None
        self._since = self._logged = monotonic()
        try:
            self._job = job_of(run)
            for name in names:
                self._start(name)
            while self._opened is None:
                list(self._step())
        except BaseException:
            self.close()
            raise
        self.problem, self.levels = self._opened.problem, self._opened.levels
        self.fitted, self.warnings = self._opened.fitted, self._opened.warnings

    def score(self, sample_ids: Sequence[str]) -> Iterator[Decided]:
        """Yield each image as it is decided.

        Raises BenchError if every worker had to stop, for the reason of the first, and
        WorkersLostError if none is left; then the same command resumes.
        """
        self.dispatch.add(sample_ids)
        while self.dispatch.left:
            for name in self.workers:
                self._feed(name)
            yield from self._step()
        self._log_speeds()

    def wait_for_all(self) -> None:
        """Wait until every worker has loaded; without this call, scoring begins with the first."""
        while any(member.stage != "ready" for member in self.workers.values()):
            list(self._step())

    def close(self) -> None:
        """End the workers, and Ray if it was started for them."""
        self.workers = {}
        self._actors.close()

    def _start(self, name: str) -> None:
        self._starts[name] += 1
        self.workers[name] = Member()
        self._actors.start(name, self._job)
        self._actors.call(name, "prepare")

    def _step(self) -> Iterator[Decided]:
        """Process the next answers, waiting at most a second, and yield their decisions."""
        if not self.workers:
            lost = (error for error in self._given_up if isinstance(error, WorkersLostError))
            raise next(lost, self._given_up[0])
        members = dict(self.workers)
        for name, answer in self._actors.answers():
            # An earlier answer of this batch may have ended and restarted the worker.
            if self.workers.get(name) is members[name]:
                yield from self._answered(name, answer)
        self._open_workers()
        now = monotonic()
        if now - self._logged >= SPEEDS_EVERY:
            self._logged = now
            self._log_speeds()
        placed = any(member.place for member in self.workers.values())
        if self._since and not placed and now - self._since >= PATIENCE:
            self._since = 0.0
            needs = self._actors.needs
            warn_user(f"No worker is ready after {PATIENCE:.0f} s. Each needs {needs} free.")

    def _answered(self, name: str, answer: Answer) -> Iterator[Decided]:
        member = self.workers[name]
        match answer:
            case WorkerProcess():
                member.place, member.stage = answer, "prepared"
                logger.info("%s is ready to load.", _named(name, answer))
                for difference in answer.differences:
                    warn_user(f"{_named(name, answer)}: {difference}.")
            case Opened():
                self._opened, member.stage = self._opened or answer, "ready"
                logger.info("%s has loaded the model.", _named(name, member.place))
            case Report() if all(map(self._is_sound, answer.decided)):
                yield from self._reported(name, answer)
            case Ended():
                yield from self._ended(name, answer)
            case _:
                reason = f"it returned an invalid {type(answer).__name__}"
                yield from self._ended(name, Ended(reason, BenchError.exit_code))

    def _open_workers(self) -> None:
        """Let prepared workers load: first one, which encodes the prompts, then all others."""
        members = self.workers.items()
        loaded = next((name for name, member in members if member.stage == "ready"), None)
        prepared = [name for name, member in members if member.stage == "prepared"]
        if loaded is None:
            prepared = prepared[: all(member.stage != "open" for _, member in members)]
        for name in prepared:
            self.workers[name].stage = "open"
            self._actors.call(name, "open", loaded and self._actors.texts_of(loaded))

    def _reported(self, name: str, report: Report) -> Iterator[Decided]:
        self.workers[name].blocks -= 1
        self.peak_memory = max(self.peak_memory or 0, report.peak_memory or 0) or None
        by_id = {decided.sample.sample_id: decided for decided in report.decided}
        counted = self.dispatch.decided(name, tuple(by_id), monotonic())
        if report.end is None:
            self._feed(name)
        else:
            yield from self._ended(name, report.end)
        for sample_id in counted:
            yield by_id[sample_id]

    def _is_sound(self, decided: Any) -> bool:
        """Return whether a decision belongs to an image of the run and can be recorded."""
        split, manifest = self._run.split, self._run.manifest
        try:
            record = make_record(decided, 0.0)
            row = split.row_of[record["sample_id"]]
            blocks = [(len(r.prompts), len(r.draws), errors) for r, errors in decided.cells]
            fit = all(errors.shape == (rows, columns) for rows, columns, errors in blocks)
        except Exception:  # values of wrong types or shapes can raise anything
            return False
        labelled = split.items is not None or record["label"] == split.labels[row]
        return fit and labelled and is_record(record, len(manifest.classes))

    def _feed(self, name: str) -> None:
        """Send a worker more images, or an empty block if there are none for it now."""
        member = self.workers[name]
        if member.stage != "ready":
            return
        while member.blocks < IN_FLIGHT and (ids := self.dispatch.give(name, monotonic())):
            member.blocks += 1
            contents = tuple(map(self._run.split.hash_sample, ids))
            self._actors.call(name, "score", ids, contents)
        if not member.blocks and self.dispatch.holds(name):
            member.blocks += 1
            self._actors.call(name, "score", (), ())

    def _ended(self, name: str, ended: Ended) -> Iterator[Decided]:
        """Restart or give up a worker that ended; yield failures of images that ended too many."""
        called = _named(name, self.workers.pop(name).place or ended.place)
        self._actors.end(name)
        if not ended.again:
            self.dispatch.leave(name)
            self._given_up.append(ended.error(called))
            warn_user(f"{self._given_up[-1]} The run continues without it.")
            return
        loss, rules = self.dispatch.lost(name), self.dispatch.rules
        again = len(loss.again)
        held = f" {again} of its images will be scored again." if again else ""
        # The number makes each warning distinct, because Python shows equal ones once.
        times = f" {self._starts[name]} times" if self._starts[name] > 1 else ""
        then = "It is restarted." if loss.restart else "It ended too often and is given up."
        warn_user(f"{called} ended{times}: {ended.reason}.{held} {then}")
        if loss.restart:
            self._start(name)
        else:
            self._given_up.append(ended.error(called))
        for sample in self._run.samples(loss.failed):
            deaths = f"the worker that scored it ended {rules.together + rules.alone} times"
            yield Decided(sample, error=f"{deaths}, {rules.alone} times with this image alone")

    def _log_speeds(self) -> None:
        for name, member in self.workers.items():
            speed, holds = self.dispatch.speed(name), self.dispatch.holds(name)
            rate = "no image yet" if speed is None else f"{speed:.2f} images/s"
            logger.info("%s: %s, holds %d", _named(name, member.place), rate, holds)


def _named(name: str, place: WorkerProcess | None) -> str:
    return f"{name} ({place})" if place else name


def open_ray(run: PreparedRun) -> Driver:
    """Return an executor with Ray workers; raises the errors of `connect` and `Driver`."""
    return Driver(run, Actors(run.config, len(run.sample_ids)))
