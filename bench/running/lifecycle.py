"""Make a run from its settings; share a backbone or a Ray connection among several runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from bench.discovery.guard import stdout_to_stderr
from bench.errors import UserError, warn_user
from bench.machine.offline import offline_if_set
from bench.running.execute import Finished, execute
from bench.running.executors.cluster import Connection, check_executor, connect
from bench.running.executors.protocol import Executor, LocalExecutor
from bench.running.in_memory import with_probe
from bench.running.prepare import NOTHING, AtHand, ask, check_chosen, prepare
from bench.running.question import PreparedRun, RunQuestion
from bench.running.risk_sweep import PlannedSweep, first_run, settled, sweep_of
from bench.running.second import as_full_sweep, audit, decide_again, with_other_noise
from bench.running.settings import RunConfig
from bench.running.until import until_of
from bench.store.fields import without_none

if TYPE_CHECKING:
    from bench.running.question import CheckedBackbone

Tell = Callable[[str], None]
Test = Callable[[PlannedSweep], object]  # such as `bench.recordings.calibrate.calibrate_sweep`
# Setting → how the run's settings change to decide N images a second time, and what does so.
SECOND_RUNS = {"again": (with_other_noise, decide_again), "audit": (as_full_sweep, audit)}


@offline_if_set
def run(
    config: RunConfig,
    at_hand: AtHand = NOTHING,
    test: Test | None = None,
    tell: Tell = lambda text: None,
) -> Finished:
    """Make the run that `config` describes, or resume it.

    A stated risk that is not tested yet takes three steps, each of which resumes: some images are
    swept, `test` tests the settings of the strategy on them, and the others are raced; `tell` is
    called with the plan. Without a `test`, or for a shard, such a risk is refused. Raises UserError
    before anything is scored; after a KeyboardInterrupt the same call resumes.
    """
    prepared, shared = prepare_run(config, at_hand), None
    sweep = sweep_of(prepared)
    if sweep is not None and test is not None and config.shard is None and not sweep.calibration():
        _make_sweep(sweep, test, tell, shared := Shared())
    return run_prepared(settled(prepared), shared)


@offline_if_set
def sweep_only(config: RunConfig, test: Test, tell: Tell = lambda text: None) -> Finished:
    """Make the sweep for a run's risk, or one shard of it, and test on it once it is complete."""
    sweep = sweep_of(prepare_run(config))
    if sweep is None:
        raise UserError(
            "--sweep-only is for --risk without an earlier calibration on other images."
        )
    return _make_sweep(sweep, test, tell)


def _make_sweep(
    sweep: PlannedSweep, test: Test, tell: Tell, shared: Shared | None = None
) -> Finished:
    """Sweep the outstanding images. Then, unless this is a shard, test on the whole sweep."""
    untested = sweep.calibration() is None
    if untested:
        tell(sweep.plan.in_words())
        if (warning := sweep.plan.warning()) is not None:
            warn_user(warning)
    finished = run_prepared(sweep.run(), shared)
    if untested and sweep.whole.config.shard is None:
        test(sweep)
    return finished


@offline_if_set
def warm_up(config: RunConfig) -> str:
    """Fetch the weights and encode the prompts once for all shards; return the run's id."""
    check_executor(config)
    run = first_run(prepare(config))
    run.check()
    run.open_engine()
    return run.manifest.run_id


def prepare_run(config: RunConfig, at_hand: AtHand = NOTHING) -> PreparedRun:
    """Prepare a run and issue its warnings."""
    in_memory = (at_hand.dataset, at_hand.rows, at_hand.loaded)
    if config.executor == "ray" and any(thing is not None for thing in in_memory):
        raise UserError(
            "--executor ray: workers load the dataset and the backbone by name, so objects in"
            " memory cannot be used. Save a pipeline with pipe.save_pretrained(FOLDER) and name the"
            " folder."
        )
    check_executor(config)
    prepared = prepare(config, at_hand)
    check_chosen(prepared)
    for warning in prepared.warnings:
        warn_user(warning)
    return prepared


def run_prepared(
    prepared: PreparedRun, shared: Shared | None = None, later: Iterable[RunConfig] = ()
) -> Finished:
    """Score a prepared run; with `again` or `audit`, decide some images a second time.

    What it loads is `shared` with earlier runs, and with `later` ones.
    """
    shared = shared or Shared()
    if prepared.backbone.objects:
        prepared = with_probe(prepared)
    until = until_of(prepared)
    after = {
        name: (count, change(prepared), decide)
        for name, (change, decide) in SECOND_RUNS.items()
        if (count := getattr(prepared.config, name)) is not None
    }
    later = chain([other.config for _, other, _ in after.values()], later)
    finished = execute(prepared, partial(shared.open_executor, later=later), until)
    second = {
        name: decide(other, finished.manifest, finished.folder, count, shared.open_executor)
        for name, (count, other, decide) in after.items()
    }
    return replace(finished, second=without_none(**second))


class Shared:
    """What the last run loaded, kept for further runs that load the same: a backbone, and Ray.

    Only one backbone is in memory at a time. One that learns is made anew for every run. A
    connection to Ray is kept only if `keeps_ray`, as in a study; otherwise each run makes its own.
    """

    def __init__(self, keeps_ray: bool = False) -> None:
        self.keeps_ray = keeps_ray
        self._backbone: CheckedBackbone | None = None
        self._ray: tuple[object, Connection] | None = None

    def open_executor(self, run: PreparedRun, later: Iterable[RunConfig] = ()) -> Executor:
        """Open a run's executor; `later` runs will share its backbone."""
        if run.config.executor != "ray":
            return LocalExecutor(run, run.open_engine(lambda: self.backbone_of(run, later)))
        from bench.running.executors.driver import open_ray

        if self.keeps_ray:
            self.connect(run.config)
        return open_ray(run)

    def backbone_of(
        self, prepared: RunQuestion, others: Iterable[RunConfig] = ()
    ) -> CheckedBackbone | None:
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
            sharing = (other for other in _asked(others) if other.backbone_key == key)
            self._backbone = prepared.kind.load(prepared, chain([prepared], sharing))
        return self._backbone

    def connect(self, config: RunConfig) -> None:
        """Connect to the Ray that the settings name, unless that is connected."""
        key = config.ray_address, config.workers
        if self._ray is None or self._ray[0] != key:
            self.disconnect()
            with stdout_to_stderr():  # Ray prints messages
                self._ray = key, connect(*key)

    def disconnect(self) -> None:
        """Disconnect from Ray, and stop it if it was started here."""
        ray, self._ray = self._ray, None
        if ray is not None:
            with stdout_to_stderr():
                ray[1].close()

    def free(self) -> None:
        """Drop the backbone and free its memory."""
        device = getattr(self._backbone, "device", None)
        self._backbone = None
        if device is not None:  # a model, whose parts may reference each other
            import torch

            gc.collect()
            torch.cuda.empty_cache()


def _asked(configs: Iterable[RunConfig]) -> Iterator[RunQuestion]:
    """Yield the runs that can be made; the others raise their errors when they start."""
    for config in configs:
        with suppress(UserError):
            yield ask(config)
