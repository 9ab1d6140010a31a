"""A sweep: many strategies replayed on one recording, evaluations against agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts import strategy as strategy_contract
from bench.contracts.parameters import Parameters
from bench.discovery.guard import guard
from bench.discovery.loading import exhaustive, load_plugins
from bench.discovery.targets import load_target, with_defaults
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import as_compared, decide, strategy_for
from bench.stats.calibration import effort_error, softmax_error
from bench.stats.metrics import summarize
from bench.stats.shares import accuracy_interval
from bench.store.decisions import as_decisions
from bench.store.documents import Manifest
from bench.store.fields import Document
from bench.store.folder import asked_records, read_manifest
from bench.store.identity import Identity, StrategyIdentity
from bench.store.records import Record, make_record
from bench.store.summary import Summary

Setting = tuple[str, Parameters]  # a strategy's name and parameters


class Share(NamedTuple):
    """A share of decisions, with its 95 % Wilson interval."""

    share: float
    ci95: tuple[float, float]


class SelfAgreement(Document):
    """How far two exhaustive runs that differ in their noise alone decide alike."""

    agreement: float
    agreement_ci95: tuple[float, float]
    n_samples: int
    against: str
    """The other run."""


class SweepRow(Document):
    """A setting, replayed; as JSON, what `bench replay --json` would print and more.

    A strategy's own `confidence` is about the expected errors of two prompts, and none of the
    probabilities whose calibration errors are here.
    """

    summary: Summary
    ece_evaluations: float | None
    """Calibration error of a probability read off the evaluations."""
    ece_softmax: float | None
    """Of one read off the scores."""
    agreement: float
    """With the exhaustive decision."""
    agreement_ci95: tuple[float, float]
    pareto: bool
    """No setting costs less and agrees as much."""
    self_agreement: SelfAgreement | None = None
    """The ceiling of any agreement, where another run says it."""
    oracle_equivalents_per_image: float | None = None
    """What the cheapest proof costs, in one row: that which agrees most of those that prove."""
    point: bool = False
    """Whether it is a run that was given, whose cost is in evaluations of its own network."""
    classifier: bool = False
    """Whether that run is of a classifier, which encodes each image once and counts its scores."""

    @property
    def cost(self) -> float:
        """Evaluation equivalents per image; of a classifier one."""
        return self.summary.cost.per_image(self.classifier)

    def beats(self, other: SweepRow) -> bool:
        """Whether it costs no more and agrees as much, and is better in one of the two."""
        better = self.cost <= other.cost and self.agreement >= other.agreement
        return better and (self.cost, self.agreement) != (other.cost, other.agreement)

    def plain(self) -> dict[str, Any]:
        """Return what JSON holds of it; a replay is not stored, so it has no id and no folder."""
        own = super().plain()
        stored = {} if self.point else {"run_id": None, "results_dir": None}
        return {**own.pop("summary"), **stored, **own}


def default_grid(
    n_draws: int, linearised: bool = False, learned: Mapping[str, Any] | None = None
) -> list[Setting]:
    """Return the settings a sweep tries unless told otherwise: those of each strategy's `sweep`.

    Args:
        n_draws: N of the recording.
        linearised: whether first-order errors were recorded, too.
        learned: parameters that were learned of other images, such as `order`.

    Raises:
        PluginError: a strategy fails to say its settings.
    """
    grid: list[Setting] = []
    for spec in sorted(load_plugins().strategies, key=lambda spec: not spec.exhaustive):
        strategy = with_defaults(load_target(spec), strategy_contract.Strategy)
        with guard(spec.label, "sweep()"):
            tried = strategy.sweep(n_draws, linearised, learned or {})
            grid += [(spec.name, dict(parameters)) for parameters in tried]
    return grid


def sweep(
    path: Path,
    settings: Iterable[Setting] | None = None,
    limit: int | None = None,
    points: Sequence[Path] = (),
) -> list[SweepRow]:
    """Replay each setting on a recorded run; nothing is stored.

    Args:
        path: the folder of the recorded run.
        settings: what to try; None: the default grid.
        limit: only so many recorded images, those that a replay with this limit decides.
        points: folders of other runs on the same images, to stand beside them.

    Raises:
        UserError: the run has no errors, a setting does not fit, or a point has other images.
    """
    recording = open_recording(path)
    if settings is None:
        settings = default_grid(recording.n_draws, recording.problem.can_linearise)
    prepared = [(name, *strategy_for(recording, name, given)) for name, given in settings]
    decided: list[list[Record]] = [[] for _ in prepared]
    decisions: list[int] = []
    full = strategy_for(recording, exhaustive(), {})[2]
    for sample in recording.some(limit):
        tables = recording.tables(sample.sample_id)
        problem = recording.questions.of(sample).problem
        outcome = decide(sample, tables, full, problem).outcome
        decisions.append(int(outcome.ranking[0]) if outcome else -1)
        for records, (*_, strategy) in zip(decided, prepared, strict=True):
            records.append(make_record(decide(sample, tables, strategy, problem), 0.0))
    rows = []
    for (name, version, parameters, strategy), records in zip(prepared, decided, strict=True):
        made = StrategyIdentity(name=name, version=version, params=parameters)
        agrees = agreement(as_decisions(records).predictions, np.array(decisions))
        rows.append(
            SweepRow(
                summary=_summary(recording.manifest, made, records, strategy.same_draws),
                ece_evaluations=effort_error(records),
                ece_softmax=softmax_error(records),
                agreement=agrees.share,
                agreement_ci95=agrees.ci95,
                pareto=True,
            )
        )
    beaten = [any(other.beats(row) for other in rows) for row in rows]
    rows = [
        row.model_copy(update={"pareto": not lost}) for row, lost in zip(rows, beaten, strict=True)
    ]
    rows = _with_oracle(rows, [strategy for *_, strategy in prepared], recording, limit)
    names = [sample.sample_id for sample in recording.some(limit)]
    return rows + [_point(recording, names, np.array(decisions), other) for other in points]


def _with_oracle(
    rows: list[SweepRow],
    strategies: Sequence[CheckedStrategy],
    recording: Recording,
    limit: int | None,
) -> list[SweepRow]:
    """Add what the cheapest proof costs to the row that agrees most of those that prove."""
    if recording.manifest.items is not None:
        return rows
    for row, strategy in sorted(
        zip(rows, strategies, strict=True), key=lambda pair: (-pair[0].agreement, pair[0].cost)
    ):
        proofs = []
        for sample in recording.some(limit):
            errors = recording.errors(sample.sample_id).astype(np.float64)
            proof = strategy.cheapest(recording.questions.of(sample).problem, errors)
            if proof is None:
                break
            proofs.append(proof)
        else:
            proved = row.model_copy(update={"oracle_equivalents_per_image": float(np.mean(proofs))})
            return [proved if other is row else other for other in rows]
    return rows


def _point(
    recording: Recording, names: Sequence[str], exhaustive: NDArray[np.int64], path: Path
) -> SweepRow:
    """Return a given run on the sweep's images, as a row."""
    source, manifest = recording.manifest, read_manifest(path)
    data, other = (found.identity.dataset for found in (source, manifest))
    if (data, source.classes) != (other, manifest.classes):
        raise UserError(f"--points {path}: it is not about the images and classes of the sweep.")
    decided = {record["sample_id"]: record for record in asked_records(path, manifest)}
    if missing := [name for name in names if name not in decided]:
        raise UserError(
            f"--points {path}: {len(missing)} of the sweep's {len(names)} images are not decided,"
            f" such as {missing[0]!r}. --limit leaves images out of the sweep."
        )
    records = [decided[name] for name in names]
    agrees = agreement(as_decisions(records).predictions, exhaustive)
    return SweepRow(
        summary=summarize(manifest, records, total_seconds=None, peak_memory=None),
        ece_evaluations=effort_error(records),
        ece_softmax=softmax_error(records),
        agreement=agrees.share,
        agreement_ci95=agrees.ci95,
        pareto=False,  # what it costs is of another network
        point=True,
        classifier=manifest.classifier,
    )


def _summary(
    source: Manifest, strategy: StrategyIdentity, records: Sequence[Record], compared: bool
) -> Summary:
    """Return the summary of the recorded run's images as another strategy decides them."""
    changed = {"strategy": strategy, "replayed_from": source.run_id}
    manifest = as_compared(source, compared).model_copy(update=changed)
    return summarize(manifest, records, total_seconds=None, peak_memory=None)


def agreement(one: NDArray[np.int64], other: NDArray[np.int64]) -> Share:
    """Return how often two lists of decisions are equal."""
    equal = int((one == other).sum())
    return Share(equal / len(one), accuracy_interval(equal, len(one)))


def self_agreement(path: Path, against: Path) -> SelfAgreement:
    """Return how far two exhaustive runs that differ in their noise alone decide alike.

    This is the honest ceiling: a cheaper strategy cannot be expected to agree with the exhaustive
    decision more than that decision does with itself.

    Args:
        path: the recorded run.
        against: the run under another seed, by any strategy that evaluates every cell; its errors
            are not needed.

    Raises:
        UserError: the runs differ in anything else, or not in their noise, or share no image, or
            did not evaluate as many cells per image.
    """
    manifests = read_manifest(path), read_manifest(against)
    kinds = [_without_noise(manifest.identity) for manifest in manifests]
    if kinds[0] != kinds[1]:
        one, other = (kind.plain() for kind in kinds)
        differing = sorted(name for name in one if one[name] != other.get(name))
        raise UserError(f"--against {against}: it differs in {', '.join(differing)}, not the seed.")
    if manifests[0].identity == manifests[1].identity:
        raise UserError(f"--against {against}: it has the same noise; run it with another --seed.")
    of_one, of_other = (
        {r["sample_id"]: r for r in asked_records(where, manifest)}
        for where, manifest in zip((path, against), manifests, strict=True)
    )
    every = (*of_one.values(), *of_other.values())
    records = [record for record in every if not record["error"]]
    if len({record["evaluations"] for record in records}) > 1:
        raise UserError(f"--against {against}: its strategy did not evaluate every cell.")
    shared = [sample_id for sample_id in of_one if sample_id in of_other]
    if not shared:
        raise UserError(f"--against {against}: the two runs share no image.")
    decided_a, decided_b = (as_decisions([run[i] for i in shared]) for run in (of_one, of_other))
    agrees = agreement(decided_a.predictions, decided_b.predictions)
    return SelfAgreement(
        agreement=agrees.share,
        agreement_ci95=agrees.ci95,
        n_samples=len(shared),
        against=manifests[1].run_id,
    )


def _without_noise(identity: Identity) -> Identity:
    """Return what decides a run's decisions, but for the noise; of the strategy, its draws."""
    draws = {"draws": identity.strategy.params.get("draws")}
    changed = {
        "seed": 0,
        "scoring": identity.scoring.model_copy(update={"noise": None}),
        "strategy": StrategyIdentity(name="any", version=0, params=draws),
    }
    return identity.model_copy(update=changed)
