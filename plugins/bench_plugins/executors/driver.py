"""The executor `ray`: its driver hands out images and restarts workers that end.

`Actors` starts workers and passes the messages; nothing else of a driver depends on Ray.
`dispatch` decides which worker scores which images, and what is repeated. Only the driver's process
opens the store.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from time import monotonic

from typing_extensions import override

from bench.contracts.decision import Decided
from bench.contracts.executor import Executor, ModelFacts, OpenRun, ScorableRun
from bench.discovery.guard import guard, stdout_to_stderr
from bench.errors import BenchError, PluginError, UserError, WorkersLostError, warn_user
from bench.running.content import PreparedRun
from bench.running.returned import checked_decision, checked_facts
from bench_plugins.executors.dispatch import Dispatch, DispatchRules
from bench_plugins.executors.ray import Actors, Connection, connect, nodes, plan_workers
from bench_plugins.executors.worker import Answer, Ended, Job, Report, WorkerProcess

logger = logging.getLogger("bench.workers")
WHO = "executor 'ray'"
IN_FLIGHT = 2  # blocks per worker, so that the next one is there before it is needed
SPEEDS_EVERY = 10.0  # seconds between log entries about the workers' speed
PATIENCE = 120.0  # seconds without a prepared worker before a warning


@dataclass
class Member:
    """State of one worker."""

    place: WorkerProcess | None = None  # None until it has prepared the run
    loaded: bool = False
    blocks: int = 0  # number of blocks that its engine has not taken yet


class Driver(OpenRun):
    """Scores with `actors` as workers; the constructor waits until the first has loaded.

    It and `score` raise BenchError if every worker had to stop, for the reason of the first, and
    WorkersLostError if none is left.
    """

    def __init__(self, run: PreparedRun, actors: Actors) -> None:
        self._run, self._actors = run, actors
        names = [f"worker {number}" for number in range(1, actors.count + 1)]
        self.workers: dict[str, Member] = {}
        self.dispatch = Dispatch((), names, DispatchRules.of(actors.count))
        self._starts: Counter[str] = Counter()
        self._given_up: list[BenchError] = []  # the error of each worker that was given up
        self._logged = monotonic()  # when speeds were logged last
        self._waiting: float | None = self._logged  # since when; None: the user was warned
        try:
            self._job = Job.of(run)
            for name in names:
                self._start(name)
            while not any(member.loaded for member in self.workers.values()):
                list(self._step())
        except BaseException:
            self.close()
            raise

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        self.dispatch.add(sample_ids)
        while self.dispatch.left:
            for name in self.workers:
                self._feed(name)
            yield from self._step()
        self._log_speeds()

    def wait_for_all(self) -> None:
        """Wait until every worker has loaded; without this call, scoring begins with the first."""
        while not all(member.loaded for member in self.workers.values()):
            list(self._step())

    @override
    def close(self) -> None:
        self.workers = {}
        self._actors.close()

    def _start(self, name: str) -> None:
        """Start a worker; the first one that was started or has loaded encodes the prompts."""
        self._starts[name] += 1
        loaded = (other for other, member in self.workers.items() if member.loaded)
        first = next(loaded, next(iter(self.workers), None))
        self.workers[name] = Member()
        self._actors.start(name, self._job, first)

    def _step(self) -> Iterator[Decided]:
        """Process the next answers, waiting at most a second, and yield their decisions."""
        if not self.workers:
            lost = (error for error in self._given_up if isinstance(error, WorkersLostError))
            raise next(lost, self._given_up[0])
        for name, answer in self._actors.answers():
            try:
                yield from self._answered(name, answer)
            except PluginError as error:
                yield from self._ended(name, Ended(error.problem, BenchError))
        now = monotonic()
        if now - self._logged >= SPEEDS_EVERY:
            self._logged = now
            self._log_speeds()
        is_ready = any(member.place for member in self.workers.values())
        if self._waiting is not None and not is_ready and now - self._waiting >= PATIENCE:
            self._waiting, needs = None, self._actors.needs
            warn_user(f"No worker is ready after {PATIENCE:.0f} s. Each needs {needs} free.")

    def _answered(self, name: str, answer: Answer) -> Iterator[Decided]:
        member = self.workers[name]
        match answer:
            case WorkerProcess():
                member.place = answer
                logger.info("%s is ready to load.", _named(name, answer))
            case ModelFacts():
                facts = checked_facts(WHO, self._run, answer)
                # Only the worker that encodes the prompts measures the rounding.
                if facts.rounding is not None or not hasattr(self, "model"):
                    self.model = facts
                member.loaded = True
                logger.info("%s has loaded the model.", _named(name, member.place))
            case Report():
                with guard(WHO, "score()"):
                    decisions = [checked_decision(WHO, self._run, d) for d in answer.decided]
                member.blocks -= 1 if answer.taken else 0
                self.peak_memory = max(self.peak_memory or 0, answer.peak_memory or 0) or None
                by_id = {decided.sample.sample_id: decided for decided in decisions}
                counted = self.dispatch.decided(name, tuple(by_id), monotonic())
                self._feed(name)
                yield from map(by_id.__getitem__, counted)
            case Ended():
                yield from self._ended(name, answer)
            case _:
                reason = f"it returned an invalid {type(answer).__name__}"
                yield from self._ended(name, Ended(reason, BenchError))

    def _feed(self, name: str) -> None:
        """Send a worker more images, or an empty block if there are none for it now."""
        member = self.workers[name]
        if not member.loaded:
            return
        while member.blocks < IN_FLIGHT and (ids := self.dispatch.give(name, monotonic())):
            member.blocks += 1
            contents = map(self._run.split.hash_sample, ids)
            self._actors.score(name, tuple(zip(ids, contents, strict=True)))
        if not member.blocks and self.dispatch.holds(name):
            member.blocks += 1
            self._actors.score(name, ())

    def _ended(self, name: str, ended: Ended) -> Iterator[Decided]:
        """Restart or give up a worker that ended; yield the images that ended too many workers."""
        worker = _named(name, self.workers.pop(name).place or ended.place)
        self._actors.end(name)
        if not ended.again:
            self.dispatch.leave(name)
            self._given_up.append(ended.error(worker))
            warn_user(f"{self._given_up[-1]} The run continues without it.")
            return
        rules, (again, failed, restart) = self.dispatch.rules, self.dispatch.lost(name)
        held = f" {len(again)} of its images will be scored again." if again else ""
        # The number makes each warning distinct, because Python shows equal ones once.
        times = f" {self._starts[name]} times" if self._starts[name] > 1 else ""
        then = "It is restarted." if restart else "It ended too often and is given up."
        warn_user(f"{worker} ended{times}: {ended.reason}.{held} {then}")
        if restart:
            self._start(name)
        else:
            self._given_up.append(ended.error(worker))
        for sample in self._run.samples(failed):
            deaths = f"the worker that scored it ended {rules.together + rules.alone} times"
            yield Decided(sample, error=f"{deaths}, {rules.alone} times with this image alone")

    def _log_speeds(self) -> None:
        for name, member in self.workers.items():
            speed, holds = self.dispatch.speed(name), self.dispatch.holds(name)
            rate = "no image yet" if speed is None else f"{speed:.2f} images/s"
            logger.info("%s: %s, holds %d", _named(name, member.place), rate, holds)


class RayExecutor(Executor):
    """Scores with workers of Ray; connects to it, or starts it, when the first run is opened."""

    def __init__(
        self,
        device: str | None = None,
        workers: int | str | None = None,
        ray_address: str | None = None,
    ) -> None:
        if find_spec("ray") is None:
            extra = "pip install 'diffusion-classifier-bench[ray]'"
            raise UserError(f"--executor ray needs the extra `ray`: {extra}")
        if device is not None and ":" in device:
            raise UserError(
                f"--device {device} names one device, but every Ray worker gets its own: use"
                f" --device {device.partition(':')[0]}."
            )
        self.device, self.workers, self.address = device, workers, ray_address
        self._connection: Connection | None = None

    @override
    def open(self, run: ScorableRun) -> Driver:
        assert isinstance(run, PreparedRun)
        most = len(run.sample_ids)
        workers = min(self.workers, most) if isinstance(self.workers, int) else self.workers
        with stdout_to_stderr():  # Ray prints messages, but stdout is for results
            self._connection = self._connection or connect(self.address, self.workers)
            layout = plan_workers(nodes(), workers, self.device, own=self.address is None)
        return Driver(run, Actors(self._connection, layout, most))

    @override
    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with stdout_to_stderr():
                connection.close()


def _named(name: str, place: WorkerProcess | None) -> str:
    return f"{name} ({place})" if place else name
