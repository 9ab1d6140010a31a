"""A sweep: many strategies replayed on one recording, evaluations against agreement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import decide, items_of, strategy_for
from bench.stats.calibration import effort_error, softmax_error
from bench.stats.metrics import accuracy_interval, predictions, summarize
from bench.store.folder import asked_records, read_manifest
from bench.store.identity import Identity, Strategy
from bench.store.records import Record, make_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Setting = tuple[str, dict[str, Any]]  # a strategy's name and parameters


def default_grid(n_draws: int, order: str | None = None, linearised: bool = False) -> list[Setting]:
    """Return the settings a sweep tries unless told otherwise.

    Args:
        n_draws: N of the recording; the published schedule is scaled to it.
        order: bands for `race` to ask first, beside the even order.
        linearised: whether first-order errors were recorded, too.
    """
    counts = [n for n in (2, 4, 8, 16, 32, 64, 128, 256) if n < n_draws]
    grid: list[Setting] = [("full", {})]
    if n_draws >= 10:
        # As 50,500 is to 500 draws; and the short one that `digits` came with.
        grid.append(("adaptive", {"samples": (n_draws // 10, n_draws), "keep": (5, 1)}))
    if n_draws >= 50:
        grid.append(("adaptive", {"samples": (5, 50), "keep": (3, 1)}))
    grid += [("uniform", {"samples": n}) for n in counts]
    grid += [("halving", {"budget": n}) for n in counts]
    grid += [("paired-ttest", {"min_scores": n}) for n in (5, 10, 20)]
    deltas = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
    grid += [("race", {"delta": delta}) for delta in deltas]
    grid += [("race", {"delta": delta, "first": 2}) for delta in (0.02, 0.005)]
    grid += [("race", {"delta": delta, "ceiling": "adaptive"}) for delta in (0.02, 1e-4)]
    if linearised:
        reaches = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
        grid += [("screen-race", {"reach": reach, "first": n}) for n in (2, 4) for reach in reaches]
    if order:
        grid += [("race", {"delta": delta, "order": order}) for delta in deltas]
    return [*grid, ("race", {"bound": "betting", "delta": 0.05})]


def sweep(
    path: Path,
    settings: Iterable[Setting] | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Replay each setting on a recorded run; nothing is stored.

    Args:
        path: the folder of the recorded run.
        settings: what to try; None: the default grid.
        limit: only so many recorded images, those that a replay with this limit decides.

    Returns:
        For each setting, what `bench replay --json` would print, and `agreement` with the
        exhaustive decision, `agreement_ci95` (Wilson), `pareto` (no setting costs less and
        agrees as much), and calibration errors: `ece_evaluations` of a probability read off the
        evaluations and `ece_softmax` of one read off the scores. A strategy's own `confidence` is
        its stability and no such probability.

    Raises:
        UserError: the run has no errors, or a setting does not fit.
    """
    recording = open_recording(path)
    if settings is None:
        settings = default_grid(recording.n_draws, None, recording.problem.can_linearise)
    prepared = [(name, *strategy_for(recording, name, given)) for name, given in settings]
    decided: list[list[Record]] = [[] for _ in prepared]
    exhaustive: list[int] = []
    full = strategy_for(recording, "full", {})[2]
    for sample in recording.some(limit):
        tables = recording.tables(sample.sample_id)
        problem = recording.questions.of(sample).problem
        outcome = decide(sample, tables, full, problem).outcome
        exhaustive.append(int(outcome.ranking[0]) if outcome else -1)
        for records, (*_, strategy) in zip(decided, prepared, strict=True):
            records.append(make_record(decide(sample, tables, strategy, problem), 0.0))
    rows = [
        _row(
            recording,
            Strategy(name=name, version=version, params=parameters),
            records,
            strategy.same_draws,
        )
        | agreement(predictions(records), np.array(exhaustive))
        for (name, version, parameters, strategy), records in zip(prepared, decided, strict=True)
    ]
    for row in rows:
        row["pareto"] = not any(_beats(other, row) for other in rows)
    return rows


def _row(
    recording: Recording, strategy: Strategy, records: Sequence[Record], compared: bool
) -> dict[str, Any]:
    source = recording.manifest
    changed = {"strategy": strategy, "replayed_from": source.run_id, **items_of(source, compared)}
    manifest = source.model_copy(update=changed)
    summary = summarize(manifest, records, total_seconds=None, peak_memory=None)
    return {
        **summary.plain(),
        "run_id": None,  # nothing is stored
        "results_dir": None,
        "ece_evaluations": effort_error(records),
        "ece_softmax": softmax_error(records),
    }


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    cost, other_cost = (r["cost"]["evaluation_equivalents_per_image"] for r in (one, other))
    better: bool = cost <= other_cost and one["agreement"] >= other["agreement"]
    return better and (cost, one["agreement"]) != (other_cost, other["agreement"])


def agreement(one: NDArray[np.int64], other: NDArray[np.int64]) -> dict[str, Any]:
    """Return the share of equal decisions with its 95 % Wilson interval."""
    equal = int((one == other).sum())
    return {
        "agreement": equal / len(one),
        "agreement_ci95": list(accuracy_interval(equal, len(one))),
    }


def self_agreement(path: Path, against: Path) -> dict[str, Any]:
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
        differing = sorted(k for k in kinds[0] if kinds[0][k] != kinds[1].get(k))
        raise UserError(f"--against {against}: it differs in {', '.join(differing)}, not the seed.")
    if manifests[0].identity == manifests[1].identity:
        raise UserError(f"--against {against}: it has the same noise; run it with another --seed.")
    one, other = (
        {r["sample_id"]: r for r in asked_records(where, manifest)}
        for where, manifest in zip((path, against), manifests, strict=True)
    )
    records = [record for run in (one, other) for record in run.values() if not record["error"]]
    if len({record["evaluations"] for record in records}) > 1:
        raise UserError(f"--against {against}: its strategy did not evaluate every cell.")
    shared = [sample_id for sample_id in one if sample_id in other]
    if not shared:
        raise UserError(f"--against {against}: the two runs share no image.")
    pairs = [predictions([run[i] for i in shared]) for run in (one, other)]
    return {**agreement(*pairs), "n_samples": len(shared), "against": manifests[1].run_id}


def _without_noise(identity: Identity) -> dict[str, Any]:
    """Return what decides a run's decisions, but for the noise; of the strategy, its draws."""
    scoring = identity.scoring.model_copy(update={"noise": None})
    return {
        **identity.plain(),
        "seed": None,
        "scoring": scoring.plain(),
        "strategy": identity.strategy.params.get("draws"),
    }


def plot(rows: Sequence[Mapping[str, Any]], ceiling: Mapping[str, Any] | None, file: Path) -> None:
    """Plot agreement and accuracy against evaluations per image, the Pareto front joined.

    Args:
        rows: from `sweep`.
        ceiling: from `self_agreement`, drawn as a band.
        file: where to; the suffix says the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    front = sorted(
        (r["cost"]["evaluation_equivalents_per_image"], r["agreement"]) for r in rows if r["pareto"]
    )
    left.step(*zip(*front, strict=True), where="post", color="0.6", linewidth=1, zorder=0)
    if ceiling is not None:
        left.axhspan(*ceiling["agreement_ci95"], color="0.93", zorder=-1)
        left.axhline(ceiling["agreement"], color="0.7", linestyle="--", label="another seed")
    for name in dict.fromkeys(row["strategy"]["name"] for row in rows):
        mine = [row for row in rows if row["strategy"]["name"] == name]
        _points(left, mine, name, lambda row: (row["agreement"], row["agreement_ci95"]))
        _points(
            right,
            mine,
            name,
            lambda row: (row["metrics"]["accuracy"], row["metrics"]["accuracy_ci95"]),
        )
    left.set_ylabel("agreement with the exhaustive decision")
    right.set_ylabel("accuracy")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xlabel("evaluation equivalents per image")
        axes.grid(alpha=0.3)
    left.legend()
    figure.suptitle(f"{rows[0]['replayed_from']}, {rows[0]['dataset']['n_samples']} images")
    figure.savefig(file, dpi=150)


def _points(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, value: Any) -> None:
    cost = [row["cost"]["evaluation_equivalents_per_image"] for row in rows]
    middle = np.array([value(row)[0] for row in rows])
    low, high = np.array([value(row)[1] for row in rows]).T
    reach = np.clip([middle - low, high - middle], 0, None)
    axes.errorbar(cost, middle, reach, fmt="o", markersize=5, elinewidth=0.7, label=name)
