"""A worker: prepares a run from its settings and scores the images that it is given.

It does not depend on Ray and runs in any process. Its messages with a driver contain names,
settings and decisions, never models or datasets.
"""

import json
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.discovery.guard import one_line
from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
from bench.discovery.targets import load_target
from bench.errors import BenchError, PluginError, UserError, WorkersLostError, quoted
from bench.inputs.split import Split
from bench.machine.cache import is_cached, writing_cached
from bench.machine.environment import installed_packages, peak_memory
from bench.machine.offline import offline
from bench.running.content import PreparedRun
from bench.running.parts.settings import RunConfig
from bench.running.prepare import Preloaded, prepare
from bench.stats.metrics.comparison import differing_identity
from bench.store.formats.identity import Identity

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
        changes: dict[str, object] = {"executor": "local", "fresh": False}
        changes |= dict.fromkeys(("workers", "ray_address", "shard"))
        changes |= run.names.precision.settings()
        # A worker may have no access to the calibration of a risk.
        config, environment = run.names.without_risk(), run.manifest.environment
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
            return WorkersLostError(
                "No worker is left. The warnings above say why. The same command resumes."
            )
        if self.kind is PluginError:
            return PluginError(worker, self.reason)
        return self.kind(f"{worker}: {self.reason}")


Answer = WorkerProcess | ModelFacts | Report | Ended


# Libraries whose version may change scores.
NUMERICAL = ("diffusers", "numpy", "torch", "transformers")


class Worker:
    """Scores images of a run in one process; `answers` is a stream of all that it reports.

    It prepares the run, verifies that it is the driver's, loads the model and scores what `score`
    queues. `fetch` asks another worker for encoded prompts. All that uses torch runs in one thread,
    because OpenMP keeps a team of threads for each calling thread, and with more threads than cores
    they do not wait actively (a third of the speed on two cores).
    """

    def __init__(self, job: Job, fetch: Fetch | None = None) -> None:
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._blocks: SimpleQueue[Block] = SimpleQueue()
        self._decided: list[Decided] = []  # not reported yet
        self._last = False  # whether the engine gets no more images in this pass
        self._prepared: PreparedRun | None = None
        self._loaded = Event()  # also if loading failed
        Thread(target=self._work, args=(job, fetch), daemon=True).start()

    def answers(self) -> Iterator[Answer]:
        """Yield what the worker reports, until its process ends."""
        while True:
            yield self._answers.get()

    def score(self, block: Block) -> None:
        """Queue images, or end a pass of the engine with an empty block.

        A report follows when the engine has taken them all. With two blocks at a time, the next one
        is there before the engine needs it, and its batches stay full. An empty block means that no
        more images come for now: those before are then decided in batches that are not full.
        """
        self._blocks.put(block)

    def texts(self, names: Collection[str]) -> Texts:
        """Return encoded prompts by file name, once the model is loaded.

        They are memory-mapped: they are read only when they are sent.
        """
        self._loaded.wait()
        run = self._prepared
        files = run.content.kind.text_files(run.content) if run else []
        return {
            file.name: np.asarray(np.memmap(file, np.uint8, "r"))
            for file in files
            if file.name in names and is_cached(file, always=True)
        }

    def _work(self, job: Job, fetch: Fetch | None) -> None:
        try:
            self._prepared = prepare_job(job)
            self._answers.put(WorkerProcess())
            with offline(self._prepared.config.offline):
                self._score(self._prepared, fetch)
        except BaseException as error:
            if self._decided:
                self._report(taken=False)
            self._answers.put(Ended.of(error, again=self._loaded.is_set()))
            self._loaded.set()

    def _score(self, run: PreparedRun, fetch: Fetch | None) -> None:
        # Its imports take seconds, and need not wait for another worker.
        load_target(run.names.backbone)
        if fetch is not None:
            _fetch_texts(run, fetch)
        opened = replace(run, compares=fetch is None).open()  # once for all workers
        self._loaded.set()
        self._answers.put(opened.model)
        while True:
            for decided in opened.score(self._arriving(run.split)):
                self._decided.append(_without_images(decided, run.config.save_errors))
                if self._last:
                    self._report(taken=False)
            self._report(taken=True)

    def _arriving(self, split: Split) -> Iterator[str]:
        """Yield the ids of one block after the other, until an empty one."""
        self._last = False
        while block := self._blocks.get():
            for sample_id, content in block:
                if split.hash_sample(sample_id, read=True) != content:
                    raise UserError(
                        f"{quoted(sample_id)} is not the driver's: its image, label or texts"
                        " differ."
                    )
                yield sample_id
            self._report(taken=True)
        self._last = True

    def _report(self, taken: bool) -> None:
        decided, self._decided = tuple(self._decided), []
        self._answers.put(Report(decided, taken, peak_memory()))


def _without_images(decided: Decided, with_errors: bool) -> Decided:
    sample = replace(decided.sample, image={})
    if sample.item is not None:
        item = replace(sample.item, images=(None,) * len(sample.item.images))
        sample = replace(sample, item=item)
    if with_errors:
        return replace(decided, sample=sample)
    return replace(decided, sample=sample, cells=[], linearised=[])


def _fetch_texts(run: PreparedRun, fetch: Fetch) -> None:
    """Cache prompts that another worker encoded; those that cannot be written are left out.

    Encoded prompts are cache files. Each is named after a hash of everything that affects it, so
    its name is the same on every machine.
    """
    files = run.content.kind.text_files(run.content)
    if not all(map(is_cached, files)):
        fetch(())  # the other worker encodes them, maybe into a shared cache
    lacking = [file for file in files if not is_cached(file)]
    texts = fetch([file.name for file in lacking]) if lacking else {}
    for file in lacking:
        if file.name in texts:
            with suppress(OSError), writing_cached(file, durable=False) as opened:
                opened.write(texts[file.name].data)


def prepare_job(job: Job) -> PreparedRun:
    """Prepare the driver's run in this process; changes the working directory to the driver's.

    Raises UserError if the run is invalid here, or its identity, code or libraries are not the
    driver's.
    """
    with suppress(OSError):  # if the folder is missing here, the missing file is reported later
        os.chdir(job.folder)
    _check_versions(job)
    prepared = prepare(
        RunConfig.model_validate_json(job.settings), Preloaded(surveyed=job.surveyed)
    )
    prepared.check()
    identity = Identity.model_validate(json.loads(job.identity))
    identity = identity.model_copy(update={"calibrated": None})
    drivers = prepared.manifest.model_copy(update={"identity": identity})
    if differing := differing_identity(prepared.manifest, drivers):
        differs = "; ".join(
            f"{name} is {a} here, and {b} there" for name, (a, b) in differing.items()
        )
        raise UserError(f"the run is not the driver's: {differs}.")
    return prepared


def _check_versions(job: Job) -> None:
    """Raise UserError if code or libraries that may change scores are not the driver's."""
    plugins, packages = load_plugins(), installed_packages()
    for name, code in source_hashes(plugins, job.code).items():
        if name not in plugins.versions():
            raise UserError(f"plugin {name} is not installed here, or failed to load.")
        if job.code[name] != code:
            raise UserError(
                f"the source files of {name} are not the driver's ({code} here, and"
                f" {job.code[name]} there): install the same files on all machines."
            )
    for name in NUMERICAL:
        # A build tag, such as `+cu128`, depends on the device.
        here, there = (str(of.get(name)).partition("+")[0] for of in (packages, job.packages))
        if here != there:
            raise UserError(
                f"{name} is {here} here, and {there} on the driver: scores may differ between them."
                " Install the same version on all machines."
            )
