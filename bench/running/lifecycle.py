"""Make a run from its settings: prepare it, load its model, and score its images.

`LoadedResources` has weights loaded, and keeps them for the next run.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import chain

from bench.contracts.executor import Executor, ExecutorSpec, OpenRun
from bench.contracts.parameters import Parameters
from bench.discovery.guard import guard, warning_guard
from bench.discovery.targets import make, with_defaults
from bench.errors import BenchError, UserError, warn_user
from bench.machine.libraries import torch
from bench.machine.offline import offline_if_set
from bench.running.checks import with_probe
from bench.running.content import CheckedBackbone, Content, PreparedRun
from bench.running.execute import Finished, execute
from bench.running.parts.machine import check_executor, executor_of
from bench.running.parts.record import check_trackers
from bench.running.parts.settings import RunConfig
from bench.running.prepare import NOTHING, Preloaded, check_chosen, prepare, read_content
from bench.running.returned import NOT_CLOSED, CheckedRun
from bench.running.risk import PlannedSweep, first_run, settled, sweep_of, with_chosen_params
from bench.running.second_runs import SECOND_RUNS, prepare_again
from bench.store.formats.fields import without_none

Tell = Callable[[str], None]
Test = Callable[[PlannedSweep], object]  # such as `bench.recordings.learn.calibrate_sweep`


@offline_if_set
def run(
    config: RunConfig,
    at_hand: Preloaded = NOTHING,
    test: Test | None = None,
    tell: Tell = lambda text: None,
) -> Finished:
    """Make the run that `config` describes, or resume it.

    A stated risk that is not tested yet takes three steps, each of which resumes: some images are
    swept, `test` tests the settings of the strategy on them, and the others are raced; `tell` is
    called with the plan. Without a `test`, or for a shard, such a risk is refused. Raises UserError
    before anything is scored; after a KeyboardInterrupt the same call resumes.
    """
    prepared = prepare_run(config, at_hand)
    with closing(LoadedResources()) as shared:
        first = settled(prepared)
        if isinstance(first, PlannedSweep) and test is not None and config.shard is None:
            _make_sweep(first, test, tell, shared)
        return run_prepared(with_chosen_params(prepared), shared)


@offline_if_set
def sweep_only(config: RunConfig, test: Test, tell: Tell = lambda text: None) -> Finished:
    """Make the sweep for a run's risk, or one shard of it, and test on it once it is complete."""
    sweep = sweep_of(prepare_run(config))
    if sweep is None:
        raise UserError(
            "--sweep-only is for --risk without an earlier calibration on other images."
        )
    with closing(LoadedResources()) as shared:
        return _make_sweep(sweep, test, tell, shared)


def _make_sweep(sweep: PlannedSweep, test: Test, tell: Tell, shared: "LoadedResources") -> Finished:
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
    run = first_run(prepare_run(config))
    run.check()
    run.open_engine()
    return run.manifest.run_id


def prepare_run(config: RunConfig, at_hand: Preloaded = NOTHING) -> PreparedRun:
    """Prepare a run and issue its warnings."""
    in_memory = (at_hand.dataset, at_hand.rows, at_hand.loaded)
    check_executor(config, any(thing is not None for thing in in_memory))
    check_trackers(config)
    prepared = prepare(config, at_hand)
    check_chosen(prepared.names)
    for warning in prepared.content.warnings:
        warn_user(warning)
    return prepared


def run_prepared(
    prepared: PreparedRun, shared: "LoadedResources", later: Iterable[RunConfig] = ()
) -> Finished:
    """Score a prepared run; with `again` or `audit`, decide some images a second time.

    What it loads is `shared` with earlier runs, and with `later` ones.
    """
    if prepared.names.backbone.objects:
        prepared = with_probe(prepared)
    after = {
        name: (count, prepare_again(prepared, change(prepared)), decide)
        for name, (change, decide) in SECOND_RUNS.items()
        if (count := getattr(prepared.config, name)) is not None
    }
    later = chain([other.config for _, other, _ in after.values()], later)
    task = prepared.task(partial(shared.open, later=later))
    finished = execute(task)
    second = {
        name: decide(other, finished.manifest, finished.folder, count, shared.open)
        for name, (count, other, decide) in after.items()
    }
    return replace(finished, second=without_none(**second))


class LoadedResources:
    """What the last run loaded, kept for further runs: a backbone, and an executor until the end.

    Only one backbone is in memory at a time. One that learns is made anew for every run.
    """

    def __init__(self) -> None:
        self._backbone: CheckedBackbone | None = None
        self._executor: tuple[ExecutorSpec, Parameters, Executor] | None = None  # made of the first

    def open(self, run: PreparedRun, later: Iterable[RunConfig] = ()) -> OpenRun:
        """Open a run with its executor, which gets the backbone; `later` runs will share it."""
        once = iter([later])  # an executor that loads a second model gets another backbone

        def lend(content: Content) -> CheckedBackbone | None:
            return next((self.backbone_of(content, others) for others in once), None)

        spec, parameters = executor_of(run.config)
        if self._executor is None or self._executor[:2] != (spec, parameters):
            self.close()
            self._executor = spec, parameters, with_defaults(make(spec, **parameters), Executor)
        run, executor = replace(run, lend=lend), self._executor[-1]
        if type(executor) is Executor:
            return executor.open(run)
        with guard(spec.label, "open()", (BenchError,)):
            return CheckedRun(with_defaults(executor.open(run), OpenRun), spec.label, run)

    def close(self) -> None:
        """Stop what the executor started."""
        made, self._executor = self._executor, None
        if made is not None:
            spec, _, executor = made
            with warning_guard(spec.label, "close()", NOT_CLOSED):
                executor.close()

    def backbone_of(
        self, content: Content, others: Iterable[RunConfig] = ()
    ) -> CheckedBackbone | None:
        """Return the loaded backbone of a run, or None if the run must make its own.

        `others` are settings of later runs. Prompts of those that will use the backbone too are
        encoded before its network is loaded, so that the two are never in memory together.
        """
        if content.names.backbone.learns:
            self.free()
            return None
        key = content.backbone_key
        if self._backbone is None or key != self._backbone.key:
            self.free()
            sharing = (other for other in _contents(others) if other.backbone_key == key)
            self._backbone = content.kind.load(content, sharing)
        return self._backbone

    def free(self) -> None:
        """Drop the backbone and free its memory."""
        device = getattr(self._backbone, "device", None)
        self._backbone = None
        if device is not None:  # a model, whose parts may reference each other
            gc.collect()
            torch.cuda.empty_cache()


def _contents(configs: Iterable[RunConfig]) -> Iterator[Content]:
    """Yield the contents of the runs that can be made; the others fail when they start."""
    for config in configs:
        with suppress(UserError):
            yield read_content(config)
