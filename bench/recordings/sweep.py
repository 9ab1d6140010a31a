"""Sweep: replay many strategies on one recording, for their cost and agreement."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import JsonValue
from typing_extensions import override

from bench.contracts import strategy as strategy_contract
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import Ints
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target, with_defaults
from bench.errors import UserError
from bench.recordings.recording import Recording, open_draws
from bench.recordings.replay import replay_settings, with_images_compared
from bench.stats.metrics import summarize
from bench.stats.shares import accuracy_interval
from bench.store.decisions import as_decisions
from bench.store.documents import Manifest
from bench.store.fields import Document
from bench.store.folder import read_manifest, requested_records
from bench.store.records import Record
from bench.store.summary import Summary

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
    equal = int((decided.predictions == full).sum())
    return SweepRow(
        summary=summarize(manifest, decided, total_seconds=None, peak_memory=None),
        agreement=equal / len(full),
        agreement_ci95=accuracy_interval(equal, len(full)),
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
