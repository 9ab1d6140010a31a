"""Make a run from its settings; share a backbone and executors among several runs."""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from typing_extensions import override

from bench.contracts.decision import Decided
from bench.contracts.executor import Executor, ExecutorSpec, OpenRun
from bench.contracts.parameters import Parameters
from bench.discovery.guard import checked_answer, guard, one_line, warning_guard
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make, with_defaults
from bench.errors import BenchError, PluginError, UserError, warn_user
from bench.machine.libraries import torch
from bench.machine.offline import offline_if_set
from bench.running.command import stored_settings
from bench.running.execute import Finished, execute
from bench.running.kinds.probe import with_probe
from bench.running.parts.machine import check_executor, executor_of
from bench.running.prepare import NOTHING, AtHand, ask, check_chosen, prepare, prepare_again
from bench.running.question import CheckedBackbone, Content, PreparedRun
from bench.running.returned import Memory, checked_decision, checked_facts
from bench.running.risk_sweep import PlannedSweep, first_run, settled, sweep_of
from bench.running.second import audit, decide_again, full_sweep, other_noise, swept
from bench.running.settings import RunConfig, make_config
from bench.stats.agreement import Audit
from bench.stats.comparison import differing_identity
from bench.store.fields import without_none
from bench.store.folder import read_manifest
from bench.store.locking import refuse_shipped

NOT_CLOSED = "What it started may still run."
Tell = Callable[[str], None]
Test = Callable[[PlannedSweep], object]  # such as `bench.recordings.calibrate.calibrate_sweep`
# Setting → how the run's settings change to decide N images a second time, and what does so.
SECOND_RUNS = {"again": (other_noise, decide_again), "audit": (full_sweep, audit)}


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
    sweep: PlannedSweep, test: Test, tell: Tell, shared: "Shared | None" = None
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
    check_executor(config, any(thing is not None for thing in in_memory))
    prepared = prepare(config, at_hand)
    check_chosen(prepared.names)
    for warning in prepared.content.warnings:
        warn_user(warning)
    return prepared


def run_prepared(
    prepared: PreparedRun, shared: "Shared | None" = None, later: Iterable[RunConfig] = ()
) -> Finished:
    """Score a prepared run; with `again` or `audit`, decide some images a second time.

    What it loads is `shared` with earlier runs, and with `later` ones.
    """
    shared = shared or Shared()
    if prepared.names.backbone.objects:
        prepared = with_probe(prepared)
    after = {
        name: (count, prepare_again(prepared, change(prepared)), decide)
        for name, (change, decide) in SECOND_RUNS.items()
        if (count := getattr(prepared.config, name)) is not None
    }
    later = chain([other.config for _, other, _ in after.values()], later)
    task = prepared.task(partial(shared.open, later=later))
    try:
        finished = execute(task)
        second = {
            name: decide(other, finished.manifest, finished.folder, count, shared.open)
            for name, (count, other, decide) in after.items()
        }
    finally:
        if not shared.keeps_executor:
            shared.close_executor()
    return replace(finished, second=without_none(**second))


MAY_DIFFER = ("strategy", "calibrated", "replayed")  # parts of the identity, from run to its sweep


def audit_stored(path: Path, count: int, settings: Mapping[str, Any]) -> Audit | None:
    """Audit a stored run or replay with the model on this machine; see `audit`.

    `count` includes earlier sweeps; `settings` are those of this machine, such as `data_dir`.
    Raises UserError if data, weights or code differ from those of the run.
    """
    refuse_shipped(path)
    manifest = read_manifest(path)
    if not manifest.on_draws:
        raise UserError(
            f"{manifest.run_id} has no draws, so there is no full sweep to compare with."
        )
    spec = load_plugins().backbones.get(str(manifest.config.backbone))
    config = make_config({**stored_settings(manifest), **without_none(**settings)})
    sweep = prepare(swept(config, spec, int(str(manifest.strategy.params["draws"]))))
    # A tree has prompts of inner nodes too, which no sweep needs.
    of_classes = [prompt for prompt in manifest.prompts if prompt[1] < len(manifest.classes)]
    same = ("prompts", "hierarchy") if of_classes == sweep.manifest.prompts else ()
    places = differing_identity(manifest, sweep.manifest)
    differs = [name for name in places if name.partition(".")[0] not in (*MAY_DIFFER, *same)]
    if differs:
        raise UserError(
            f"{manifest.run_id} cannot be swept here, because {', '.join(differs)} differ. Name its"
            " data with --data-dir, or use the version of the toolkit that made it."
        )
    sweep.check()
    return audit(sweep, manifest, path, count, PreparedRun.open)


class CheckedRun(OpenRun):
    """Wrapper of a run that the executor `who` has opened, which errors name."""

    def __init__(self, opened: OpenRun, who: str, run: PreparedRun) -> None:
        self._opened, self._who, self._run = opened, who, run
        self.model = checked_facts(who, run, opened.model)
        self.device = checked_answer(who, "device", str | None, lambda: opened.device)

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        waiting, decisions, who = dict.fromkeys(sample_ids), None, self._who
        memory = lambda: self._opened.peak_memory  # noqa: E731
        while waiting:
            with guard(who, "score()", (BenchError,)):
                decisions = decisions or iter(self._opened.score(list(waiting)))
                decided: Any = next(decisions, None)
                name = decided.sample.sample_id if isinstance(decided, Decided) else None
                if not isinstance(name, str) or name not in waiting:
                    left = f"{len(waiting)} images are left, each of which is wanted once"
                    raise PluginError(who, f"score() yielded {one_line(name or decided)}; {left}")
            self.peak_memory = checked_answer(who, "peak_memory", Memory, memory)
            del waiting[name]
            yield checked_decision(who, self._run, decided)

    @override
    def close(self) -> None:
        with warning_guard(self._who, "close()", NOT_CLOSED):
            self._opened.close()


class Shared:
    """What the last run loaded, kept for further runs: a backbone, and an executor.

    Only one backbone is in memory at a time. One that learns is made anew for every run. An
    executor is kept only if `keeps_executor`, as in a study; otherwise each run makes its own.
    """

    def __init__(self, keeps_executor: bool = False) -> None:
        self.keeps_executor = keeps_executor
        self._backbone: CheckedBackbone | None = None
        self._executor: Executor | None = None
        self._key: tuple[ExecutorSpec, Parameters] | None = None  # what the executor was made of

    def open(self, run: PreparedRun, later: Iterable[RunConfig] = ()) -> OpenRun:
        """Open a run with its executor, which gets the backbone; `later` runs will share it."""
        once = iter([later])  # an executor that loads a second model gets another backbone

        def lend(content: Content) -> CheckedBackbone | None:
            return next((self.backbone_of(content, others) for others in once), None)

        key = executor_of(run.config)
        if self._executor is None or key != self._key:
            self.close_executor()
            self._executor, self._key = with_defaults(make(key[0], **key[1]), Executor), key
        assert self._executor is not None
        run, who = replace(run, lend=lend), key[0].label
        if type(self._executor) is Executor:
            return self._executor.open(run)
        with guard(who, "open()", (BenchError,)):
            return CheckedRun(with_defaults(self._executor.open(run), OpenRun), who, run)

    def close_executor(self) -> None:
        """Stop what the executor started."""
        executor, self._executor = self._executor, None
        if executor is not None and self._key is not None:
            with warning_guard(self._key[0].label, "close()", NOT_CLOSED):
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
            sharing = (other for other in _asked(others) if other.backbone_key == key)
            self._backbone = content.kind.load(content, sharing)
        return self._backbone

    def free(self) -> None:
        """Drop the backbone and free its memory."""
        device = getattr(self._backbone, "device", None)
        self._backbone = None
        if device is not None:  # a model, whose parts may reference each other
            gc.collect()
            torch.cuda.empty_cache()


def _asked(configs: Iterable[RunConfig]) -> Iterator[Content]:
    """Yield the runs that can be made; the others raise their errors when they start."""
    for config in configs:
        with suppress(UserError):
            yield ask(config)
