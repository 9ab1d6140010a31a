"""Make a run from its settings; share a backbone or a Ray connection among several runs."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.discovery.guard import stdout_to_stderr
from bench.errors import UserError, warn_user
from bench.machine.offline import offline_if_set
from bench.running.execute import Finished, execute
from bench.running.executors.cluster import Connection, check_executor, connect
from bench.running.executors.protocol import Executable, Executor, LocalExecutor, OpenExecutor
from bench.running.in_memory import with_probe
from bench.running.model_run import ModelRun
from bench.running.prepare import prepare, prepare_again
from bench.running.prepared import Prepared
from bench.running.scorers import kind_of
from bench.running.settings import RunConfig
from bench.running.until import watch_of
from bench.running.verbs.agreement import as_full_sweep, audit, decide_again, with_other_noise
from bench.store.fields import without_none

if TYPE_CHECKING:
    import datasets

    from bench.running.scorers.kind import CheckedBackbone

# Setting → how the run's settings change to decide N images a second time, and what does so.
SECOND_RUNS = {"again": (with_other_noise, decide_again), "audit": (as_full_sweep, audit)}


@offline_if_set
def warm_up(config: RunConfig) -> str:
    """Fetch the weights and encode the prompts once for all shards; return the run's id."""
    check_executor(config)
    prepared = prepare(config)
    if (sweep := prepared.sweep) is not None and sweep.calibration is None:
        prepared = prepare_again(prepared, sweep.config)  # the same backbone and prompts
    run = ModelRun(prepared)
    run.check()
    run.open_engine()
    return prepared.manifest.run_id


@offline_if_set
def run(config: RunConfig) -> Finished:
    """Make the run that `config` describes, or resume it.

    Raises UserError before anything is scored; after a KeyboardInterrupt the same call resumes.
    """
    return run_prepared(prepare_run(config))


def prepare_run(
    config: RunConfig,
    dataset: DatasetSpec | None = None,
    rows: datasets.Dataset | None = None,
    loaded: Any = None,
) -> Prepared:
    """Prepare a run and issue its warnings; the arguments are those of `prepare`."""
    if config.executor == "ray" and not (dataset is rows is loaded is None):
        raise UserError(
            "--executor ray: workers load the dataset and the backbone by name, so objects in"
            " memory cannot be used. Save a pipeline with pipe.save_pretrained(FOLDER) and name the"
            " folder."
        )
    check_executor(config)
    prepared = prepare(config, dataset, rows=rows, loaded=loaded)
    if prepared.backbone.objects:
        prepared = with_probe(prepared)
    for warning in prepared.warnings:
        warn_user(warning)
    return prepared


def run_prepared(prepared: Prepared, shared: SharedBackbone | None = None) -> Finished:
    """Score a prepared run; with `again` or `audit`, decide some images a second time."""
    watch = watch_of(prepared)
    after = {
        name: (count, change(prepared), decide)
        for name, (change, decide) in SECOND_RUNS.items()
        if (count := getattr(prepared.config, name)) is not None
    }
    if not after and shared is None:
        return execute(ModelRun(prepared), executor_of(prepared), watch)
    shared, others = shared or SharedBackbone(), [other.config for _, other, _ in after.values()]
    finished = execute(sharing(prepared, shared, others), executor_of(prepared), watch)
    second = {
        name: decide(
            sharing(other, shared, []),
            finished.manifest,
            finished.folder,
            count,
            executor_of(other),
        )
        for name, (count, other, decide) in after.items()
    }
    return replace(finished, second=without_none(**second))


def executor_of(prepared: Prepared) -> OpenExecutor:
    """Return what opens a run's executor; raises UserError if it is not installed."""
    check_executor(prepared.config)
    if prepared.config.executor == "local":
        return LocalExecutor
    from bench.running.executors.driver import open_ray

    return lambda _: open_ray(prepared)


class SharedBackbone:
    """The backbone of the last run, kept for further runs that load it with the same settings.

    Only one is in memory at a time. A backbone that learns is made anew for every run.
    """

    def __init__(self) -> None:
        self._backbone: CheckedBackbone | None = None

    def of(self, prepared: Prepared, others: Iterable[RunConfig] = ()) -> CheckedBackbone | None:
        """Return the loaded backbone of a run, or None if the run must make its own.

        `others` are settings of later runs. Prompts of those that will use the backbone too are
        encoded before its network is loaded, so that the two are never in memory together.
        """
        if prepared.backbone.learns:
            self.free()
            return None
        key = prepared.backbone_key
        if self._backbone is None or key != self._backbone.key:
            self.free()
            sharing = (other for other in _prepared(others) if other.backbone_key == key)
            self._backbone = kind_of(prepared).load(prepared, chain([prepared], sharing))
        return self._backbone

    def free(self) -> None:
        """Drop the backbone and free its memory."""
        device = getattr(self._backbone, "device", None)
        self._backbone = None
        if device is not None:  # a model, whose parts may reference each other
            import torch

            gc.collect()
            torch.cuda.empty_cache()


def sharing(prepared: Prepared, shared: SharedBackbone, others: Iterable[RunConfig]) -> ModelRun:
    """Return a run that takes its backbone from `shared`."""
    return ModelRun(prepared, lambda: shared.of(prepared, others))


def _prepared(configs: Iterable[RunConfig]) -> Iterator[Prepared]:
    """Yield the runs that can be prepared; the others raise their errors when they start."""
    for config in configs:
        with suppress(UserError):
            yield prepare(config, images=False)


class SharedCluster:
    """The Ray connection of the last run, kept for further runs with the same Ray settings."""

    def __init__(self) -> None:
        self._key: object = None
        self._connection: Connection | None = None

    def executor_of(self, prepared: Prepared) -> OpenExecutor:
        """Return what opens a run's executor; for Ray, on the shared connection."""
        opens, config = executor_of(prepared), prepared.config
        if config.executor != "ray":
            return opens

        def connected(run: Executable) -> Executor:
            key = config.ray_address, config.workers
            if key != self._key:
                self.close()
                with stdout_to_stderr():  # Ray prints messages
                    self._connection = connect(*key)
                self._key = key
            return opens(run)

        return connected

    def close(self) -> None:
        """Disconnect, and stop a Ray that was started here."""
        connection, self._connection, self._key = self._connection, None, None
        if connection is not None:
            with stdout_to_stderr():
                connection.close()
