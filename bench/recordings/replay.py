"""Replay strategies on a run's recorded errors, without the model.

A replay is stored as a run; a sweep compares the cost and agreement of many settings.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import JsonValue
from typing_extensions import override

from bench.contracts import strategy as strategy_contract
from bench.contracts.dataset import Sample
from bench.contracts.decision import MEAN, Decided
from bench.contracts.executor import ModelFacts, OpenRun
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Floats32, Ints, Problem
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.discovery.sources import source_hashes
from bench.discovery.targets import load_target, with_defaults
from bench.engine.asking import CheckedStrategy
from bench.engine.items import SampleInProgress, plain_problem
from bench.errors import UserError, refusing
from bench.inputs.estimand import check_estimand, draw_weights, parse_weighting
from bench.machine.environment import environment
from bench.machine.stages import counted
from bench.recordings.recording import Recording, Tables, open_draws, open_recording, subset_of
from bench.running.command import recording_command
from bench.running.execute import Task
from bench.running.parts.decision import (
    ConfiguredStrategy,
    StatedRisk,
    check_strategy,
    make_decider,
)
from bench.running.parts.measure import weighting_identity
from bench.running.risk import choose_setting
from bench.stats.inference.shares import mean_interval
from bench.stats.metrics.summarise import summarize
from bench.store.folder import read_manifest, requested_records, whole_manifest
from bench.store.formats import identity as ids
from bench.store.formats.cells import read_draws
from bench.store.formats.decisions import as_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Document, without_none
from bench.store.formats.identity import CalibratedOn, ScoringIdentity, Source
from bench.store.formats.journal import Record, make_record
from bench.store.summary import Summary


class Replaying(OpenRun):
    """A run that a strategy decides from recorded errors instead of a model."""

    def __init__(self, recording: Recording, strategy: CheckedStrategy) -> None:
        self.model = ModelFacts(recording.problem)  # without levels: errors are not stored again
        self._recording, self._strategy = recording, strategy

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        for sample in self._recording.samples(sample_ids):
            tables, problem = self._recording.tables_and_problem(sample)
            yield decide(sample, tables, self._strategy, problem)


Replay = tuple[ConfiguredStrategy, list[Record]]  # a setting, and its decisions on some samples


def replay_settings(
    recording: Recording,
    samples: Sequence[Sample],
    settings: Iterable[tuple[str, Mapping[str, Any]]],
) -> tuple[Replay, list[Replay]]:
    """Replay the full sweep and some settings, pairs of a strategy's name and its parameters.

    Each sample's errors are read once. Raises as `decider_for`.
    """
    named = [(exhaustive_strategy(), {}), *settings]
    replays: list[Replay] = [(decider_for(recording, *setting), []) for setting in named]
    for sample in counted(samples, f"Replaying {len(named)} settings", len(samples)):
        tables, problem = recording.tables_and_problem(sample)
        for decider, records in replays:
            records.append(make_record(decide(sample, tables, decider.strategy, problem), 0.0))
    return replays[0], replays[1:]


def decide(
    sample: Sample,
    recorded: Tables | Floats32,
    strategy: CheckedStrategy,
    problem: Problem,
) -> Decided:
    """Let a strategy decide one sample from its tables, or from its errors [P, N] alone.

    P of an item is images × texts, with the texts of one image adjacent. `problem` is that of a
    single image of the sample.
    """
    tables = recorded if isinstance(recorded, Tables) else Tables(recorded)
    started = SampleInProgress(sample, strategy, plain_problem(problem))
    prompts = len(problem.class_of_prompt)
    for number, session in enumerate(started.sessions):
        own = tables
        if sample.item is not None:
            own = replace(tables, errors=tables.errors[number * prompts :][:prompts])
        while (request := session.ask()) is not None:
            session.tell(request, own.reply(request), own.linearisation_cost)
        if (decided := started.finish_image()) is not None:
            return decided
    raise AssertionError("a sample has at least one image")


def decider_for(recording: Recording, name: str, params: Mapping[str, Any]) -> ConfiguredStrategy:
    """Return a strategy for the recorded number of draws; UserError if a parameter does not fit."""
    spec = load_plugins().strategies.get(name)
    n_draws = recording.n_draws
    recorded = {"draws": n_draws} if "draws" in spec.parameters else {}
    decider = make_decider(spec, {**recorded, **params})
    strategy = decider.strategy
    if strategy.draws != n_draws:
        raise UserError(
            f"{recording.manifest.run_id} recorded {n_draws} draws; a replay cannot use"
            f" draws={strategy.draws}, because other draws have other noise. Leave draws out, or"
            " record a run with that number."
        )
    check_replayed(decider, recording.manifest)
    problem = recording.problem
    if (items := recording.manifest.items) is not None:  # the item with the most texts
        problem = replace(problem, class_of_prompt=np.arange(items.texts), can_linearise=False)
    strategy.check(problem)
    if strategy.linearises and not recording.problem.can_linearise:
        raise UserError(
            f"Strategy {name!r} linearises, but {recording.manifest.run_id} recorded no first-order"
            " errors. Record both once with:"
            f" {recording_command(recording.manifest, spec.recorder or None)}"
        )
    if strategy.uses_hierarchy and recording.problem.parents is None:
        raise UserError(
            f"Strategy {name!r} descends a tree of classes, but {recording.manifest.run_id}"
            " recorded no inner nodes. Record them once with --hierarchy FILE and:"
            f" {recording_command(recording.manifest, spec.recorder)}"
        )
    return decider


def check_replayed(decider: ConfiguredStrategy, manifest: Manifest) -> None:
    """Raise UserError if a strategy cannot decide what a run recorded."""
    items, reduction, name = manifest.items, manifest.identity.scoring.reduction, manifest.run_id
    check_strategy(
        decider,
        name if reduction is None else f"the likelihood of {name}",
        items=None if items is None else (items.images, items.texts),
        reduction=reduction or MEAN,
        gradients=reduction is None,  # a likelihood has none
    )


def prepare_replay(
    path: Path,
    strategy: str,
    params: Mapping[str, Any],
    results: Path,
    limit: int | None = None,
    fresh: bool = False,
    weighting: str | None = None,
    risk: float | None = None,
) -> Task:
    """Prepare to replay a recorded run with another strategy; `execute` stores it as a new run.

    Parameters not in `params` keep their defaults; `draws` is the recorded number. The new run is
    stored in the folder `results`, and `fresh` starts it over. `limit` is the size of a stratified
    and reproducible subset. `weighting` and `risk` are as in `bench run`; the risk chooses the
    other parameters by a calibration in `results`. Raises UserError if no errors were stored, the
    strategy does not fit, or no parameters keep the risk.
    """
    started = time.perf_counter()
    recording = open_recording(path)
    if weighting is not None:
        recording = _reweight(recording, weighting)
    decider = decider_for(recording, strategy, params)
    settings = {"strategy": strategy, "params": {**params}, "limit": limit, "results": str(results)}
    manifest = _make_manifest(recording, decider, settings)
    if risk is not None:
        stated = StatedRisk(risk, decider, params, results)
        stated.check()
        chosen, calibrated = choose_setting(stated, manifest)
        decider = decider_for(recording, strategy, chosen)
        manifest = _make_manifest(recording, decider, {**settings, "risk": risk}, calibrated)
    return Task(
        manifest=manifest,
        strategy=decider.strategy,
        folder=results / manifest.run_id,
        started=started,
        open=partial(Replaying, recording, decider.strategy),
        fresh=fresh,
        timed=False,
    )


def _reweight(recording: Recording, text: str) -> Recording:
    """Return the recording with the weighting `text`, in the form of `--weighting`.

    Raises UserError if the weighting is invalid or learned, does not fit loss and space, or the run
    did not record the levels of its errors.
    """
    with refusing("--weighting: ", ValueError):
        weighting = parse_weighting(text)
        scoring = recording.manifest.identity.scoring
        check_estimand(str(scoring.loss), str(scoring.space), weighting)
    if weighting.name == "learned":
        raise UserError(
            "--weighting learned:RUN is for `bench run`, which checks that RUN has other images."
        )
    draws = read_draws(recording.path, recording.n_draws)
    if draws is None:
        raise UserError(
            f"--weighting: {recording.path} did not record the levels of its errors. Record them"
            " with: --strategy full --save-errors"
        )
    weights = draw_weights(weighting, draws.table, str(scoring.space), draws.levels, draws.n_levels)
    kept = {name: value for name, value in scoring.plain().items() if name != "weighting"}
    scored = ScoringIdentity(**kept, **without_none(weighting=weighting_identity(weighting)))
    identity = recording.manifest.identity.model_copy(update={"scoring": scored})
    return replace(
        recording,
        problem=replace(recording.problem, weights=weights),
        manifest=recording.manifest.model_copy(update={"identity": identity}),
    )


def _make_manifest(
    recording: Recording,
    decider: ConfiguredStrategy,
    settings: Mapping[str, Any],
    calibrated: CalibratedOn | None = None,
) -> Manifest:
    source = with_images_compared(recording.manifest, decider.strategy.same_draws)
    strategy = decider.identity
    if source.part or source.asked:
        source = whole_manifest(source)
    plugins = load_plugins()
    replayed = Source(run_id=source.run_id, identity=ids.digest(source.identity))
    changed = {"strategy": strategy, "replayed": replayed, **without_none(calibrated=calibrated)}
    identity = source.identity.model_copy(update=changed)
    names = source.dataset.name, source.backbone.name, strategy.name
    code = source_hashes(plugins, [plugins.strategies.owner(strategy.name)])
    return source.model_copy(
        update={
            "run_id": ids.run_id(*names, identity),
            "identity": identity,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": source.config.model_copy(update={**settings, "save_errors": False}),
            "strategy": strategy,
            "samples": subset_of(recording.records, settings["limit"]),
            "environment": environment(plugins.versions(), code),
            "replayed_from": source.run_id,
            **({"pairs_averaged": True} if identity.scoring.antithetic else {}),
        }
    )


def with_images_compared(source: Manifest, compared: bool) -> Manifest:
    """Return a manifest that records whether the strategy compares the images of an item."""
    if source.items is None:
        return source
    items = source.items.model_copy(update={"images_compared": compared})
    return source.model_copy(update={"items": items})


SHOWN_AGREEMENT = 0.95  # lower limit of the agreement of a setting that is recommended

SweepSetting = tuple[str, Parameters]  # name and parameters of a strategy


class SweepRow(Document):
    """A replayed setting; its JSON includes that of `bench replay --json`."""

    summary: Summary
    agreement: float  # proportion of decisions equal to those of the full sweep
    agreement_ci95: tuple[float, float]
    pareto: bool  # whether on the Pareto front of cost and agreement
    recommended: bool = False
    """Whether it is the cheapest setting that is shown, by the lower end of its interval, to decide
    at least 95 % of such images as the full sweep does."""
    point: bool = False
    """Whether this is a named run rather than a replay. Its cost is in its own network's units."""
    classifier: bool = False  # whether that run has a classifier, which encodes each image once

    @property
    def cost(self) -> float:
        """Evaluation equivalents per image; 1 for a classifier."""
        return self.summary.cost.per_image(self.classifier)

    def beats(self, other: Self) -> bool:
        """Return whether this row dominates another: it is no worse in either, and not equal."""
        better = self.cost <= other.cost and self.agreement >= other.agreement
        return better and (self.cost, self.agreement) != (other.cost, other.agreement)

    @override
    def plain(self) -> dict[str, JsonValue]:
        """Return the JSON. A replay is not stored, so its id and folder are null."""
        stored = {} if self.point else {"run_id": None, "results_dir": None}
        own = {name: value for name, value in super().plain().items() if name != "summary"}
        return {**self.summary.plain(), **stored, **own}


def default_grid(
    n_draws: int, linearised: bool = False, learned: Mapping[str, Any] | None = None
) -> list[SweepSetting]:
    """Return the settings that each strategy's `sweep` proposes, the exhaustive strategy's first.

    `learned` are parameters learned from other images. Raises PluginError if a strategy fails.
    """
    grid: list[SweepSetting] = []
    for spec in sorted(load_plugins().strategies, key=lambda spec: not spec.exhaustive):
        strategy = with_defaults(load_target(spec), strategy_contract.Strategy)
        with guard(spec.label, "sweep()"):
            tried = strategy.sweep(n_draws, linearised, learned or {})
            grid += [(spec.name, dict(parameters)) for parameters in tried]
    return grid


def sweep(
    path: Path,
    settings: Iterable[SweepSetting] | None = None,
    limit: int | None = None,
    points: Sequence[Path] = (),
) -> list[SweepRow]:
    """Replay settings on a recorded run without storing anything; return one row per setting.

    A row for each run in `points`, made on the same images, follows. Without `settings`, the
    default grid is replayed; `limit` chooses the same images as for a replay. Raises UserError if
    the run cannot be replayed, a setting does not fit it, or a run in `points` has other images or
    classes.
    """
    recording = open_draws(path)
    if settings is None:
        settings = default_grid(recording.n_draws, recording.problem.can_linearise)
    samples = recording.subset(limit)
    (_, swept), replays = replay_settings(recording, samples, settings)
    decisions, rows = as_decisions(swept).predictions, []
    for decider, records in replays:
        changed = {"strategy": decider.identity, "replayed_from": recording.manifest.run_id}
        compared = with_images_compared(recording.manifest, decider.strategy.same_draws)
        manifest = compared.model_copy(update=changed)
        rows.append(_make_row(manifest, records, decisions, pareto=True))
    front = [not any(other.beats(row) for other in rows) for row in rows]
    safe = [row for row in rows if row.agreement_ci95[0] >= SHOWN_AGREEMENT]
    best = min(safe, key=lambda row: row.cost, default=None)
    rows = [
        row.model_copy(update={"pareto": pareto, "recommended": row is best})
        for row, pareto in zip(rows, front, strict=True)
    ]
    names = [sample.sample_id for sample in samples]
    return rows + [_make_point(recording, names, decisions, other) for other in points]


def _make_row(manifest: Manifest, records: Sequence[Record], full: Ints, **marks: bool) -> SweepRow:
    decided = as_decisions(records)
    equal = decided.predictions == full
    return SweepRow(
        summary=summarize(manifest, decided, total_seconds=None, peak_memory=None),
        agreement=float(equal.mean()),
        agreement_ci95=mean_interval(equal, decided.clusters),
        **marks,
    )


def _make_point(recording: Recording, names: Sequence[str], full: Ints, path: Path) -> SweepRow:
    """Return the row of another run, restricted to the images of the sweep."""
    source, manifest = recording.manifest, read_manifest(path)
    tasks = [(run.identity.dataset, run.classes) for run in (source, manifest)]
    if tasks[0] != tasks[1]:
        raise UserError(f"--points {path}: it has other images or classes than the sweep.")
    decided = {record["sample_id"]: record for record in requested_records(path, manifest)}
    if missing := [name for name in names if name not in decided]:
        raise UserError(
            f"--points {path}: {len(missing)} of the sweep's {len(names)} images are not decided,"
            f" such as {missing[0]!r}. --limit leaves images out of the sweep."
        )
    records = [decided[name] for name in names]
    # Not on the Pareto front, because its cost is in evaluations of another network.
    return _make_row(
        manifest, records, full, pareto=False, point=True, classifier=manifest.classifier
    )
