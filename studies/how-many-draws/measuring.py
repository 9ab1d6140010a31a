"""Reads recordings and measures them: plain results, ready for JSON, figures and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import halves
import numpy as np
from numpy.typing import NDArray

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import decide, default_grid
from bench.running.parts.decision import make_decider
from bench.stats.inference.shares import accuracy_interval
from bench.store.folder import list_runs
from bench.store.formats.journal import make_record
from bench.store.runs import StoredRun, read_run

Result = dict[str, Any]
SPLITS = 8  # of the draws into halves, for evenly spread draws
LEVEL_PARTS = 8  # of the draws, from the least noise to the most
MARGIN_PARTS = 4  # of the images, by the margin of the reference


@dataclass(frozen=True)
class Stored:
    """The runs of a folder: recordings, and others on the same images."""

    recordings: list[Recording]
    others: list[StoredRun]


def read_results(folder: Path) -> Stored:
    """Return the runs below a folder. UserError: it holds no recording, or one has items."""
    stored = Stored([], [])
    for path in list_runs(folder) if folder.is_dir() else ():
        run = read_run(path)
        if not len(run.decided()):
            continue
        try:
            recording = open_recording(path)
        except UserError:
            stored.others.append(run)
            continue
        if recording.manifest.items or recording.problem.antithetic or recording.n_draws < 4:
            raise UserError(
                f"{path}: the study takes images with one question for all, and four draws or more"
                " that are not antithetic."
            )
        if np.ptp(recording.problem.weights):
            raise UserError(f"{path}: the study takes recordings without --weighting.")
        stored.recordings.append(recording)
    if not stored.recordings:
        raise UserError(
            f"{folder} holds no recording. Make them first:"
            " python studies/how-many-draws/record.py --results FOLDER"
        )
    return stored


def measure(recording: Recording) -> Result:
    """Return all that is measured on one recording."""
    ids = [record["sample_id"] for record in recording.records]
    labels = np.array([record["label"] for record in recording.records], dtype=np.int64)
    errors = np.stack([recording.errors(sample_id) for sample_id in ids])
    classes = recording.problem.class_of_prompt
    manifest = recording.manifest
    measured = halves.curve(errors, labels, classes, SPLITS)
    ceiling = float(measured.ceiling.mean())
    draws = np.array(measured.draws, dtype=np.float64)
    per_draw = len(classes) * recording.problem.cell_cost
    noise = halves.noise_of_draws(errors, labels, classes)
    return {
        "run_id": manifest.run_id,
        "dataset": f"{manifest.dataset.name}/{manifest.dataset.split}",
        "backbone": manifest.backbone.name,
        "trained_on": manifest.backbone.trained_on,
        "dtype": manifest.backbone.dtype,
        "images": len(ids),
        "images_wanted": len(manifest.samples),
        "classes": len(manifest.classes),
        "prompts": len(classes),
        "draws": recording.n_draws,
        "cells": int(errors.size),
        "bytes": sum(file.stat().st_size for file in (recording.path / "errors").iterdir()),
        "accuracy": _share(halves.decide(errors, np.arange(errors.shape[2]), classes) == labels),
        "ceiling": {"agreement": ceiling, "ci95": halves.interval(measured.ceiling)},
        "curve": [
            {
                "draws": number,
                "evaluations": number * per_draw,
                "agreement": float(measured.agreement[place].mean()),
                "agreement_ci95": halves.interval(measured.agreement[place]),
                "with_shared_draws": float(measured.shared[place].mean()),
                "accuracy": float(measured.correct[place].mean()),
                "accuracy_sd_over_draws": _deviation(noise.get(number)),
            }
            for place, number in enumerate(measured.draws)
        ],
        "least_draws": vars(halves.least(draws, measured.agreement, measured.ceiling)),
        "levels": _levels(recording, errors, labels),
        "strategies": _strategies(recording, errors, labels),
    }


def _share(right: NDArray[np.bool_]) -> Result:
    count = int(right.sum())
    return {"accuracy": count / len(right), "ci95": accuracy_interval(count, len(right))}


def _deviation(values: NDArray[np.float64] | None) -> float | None:
    return None if values is None else float(values.std(ddof=1))


def _levels(recording: Recording, errors: halves.Errors, labels: halves.Ints) -> Result:
    problem = recording.problem
    classes, times = problem.class_of_prompt, problem.timesteps
    parts = min(LEVEL_PARTS, recording.n_draws)
    decisions = halves.by_level(errors, labels, classes, parts)
    ends = np.array_split(times, parts)
    return {
        "timesteps": times.tolist(),
        "single_draw_accuracy": halves.single_draws(errors, labels, classes).tolist(),
        "chance": 1 / len(np.unique(classes)),
        "parts": [
            {"from": int(own.min()), "to": int(own.max()), "draws": len(own)}
            | _share(decided == labels)
            for own, decided in zip(ends, decisions, strict=True)
        ],
    }


def _strategies(recording: Recording, errors: halves.Errors, labels: halves.Ints) -> list[Result]:
    """Replay each setting of `bench sweep` on each of two halves, against the other half."""
    names = list(recording.manifest.classes)
    samples, problem = recording.samples(), recording.problem
    ways = list(halves.directions(recording.n_draws, 1))
    half = len(ways[0][0])
    settings = [setting for setting in default_grid(half) if _fits(recording, *setting)]
    decisions = np.zeros((len(settings), len(ways), len(samples)), np.int64)
    costs = np.zeros(decisions.shape)
    references, margins = [], []
    for way, (reference, draws) in enumerate(ways):
        references.append(halves.decide(errors, reference, problem.class_of_prompt))
        margins.append(_margins(errors, reference, problem.class_of_prompt))
        own = replace(problem, timesteps=problem.timesteps[draws], weights=problem.weights[draws])
        for place, (name, params) in enumerate(settings):
            strategy = _made(name, params, half)
            for image, sample in enumerate(samples):
                record = make_record(decide(sample, errors[image][:, draws], strategy, own), 0.0)
                if record["error"] is not None:
                    raise UserError(f"{name} failed on {sample.sample_id}: {record['error']}")
                decisions[place, way, image] = int(record["prediction"] or 0)
                costs[place, way, image] = record.get("equivalents", record["evaluations"])
    expected = np.array(references)
    exhaustive = decisions[0]
    ceiling = (exhaustive == expected).mean(axis=0)
    agreement = (decisions == expected).mean(axis=1)
    cost = costs.mean(axis=(1, 2))
    rows: list[Result] = []
    for name in dict.fromkeys(name for name, _ in settings):
        mine = np.array([place for place, setting in enumerate(settings) if setting[0] == name])
        least = halves.least(cost[mine], agreement[mine], ceiling)
        chosen = next((p for p in mine if cost[p] == least.cost), None)
        rows.append(
            {
                "strategy": name,
                "least_evaluations": vars(least),
                "setting": None if chosen is None else _text(settings[chosen][1]),
                "settings": [
                    {
                        "setting": _text(settings[place][1]),
                        "evaluations": float(cost[place]),
                        "agreement": float(agreement[place].mean()),
                        "agreement_ci95": halves.interval(agreement[place]),
                        "accuracy": float((decisions[place] == labels).mean()),
                    }
                    for place in mine
                ],
                "loses": None
                if chosen is None or not chosen
                else _loses(decisions[chosen], exhaustive, labels, names, np.array(margins)),
            }
        )
    return rows


def _fits(recording: Recording, name: str, params: Any) -> bool:
    """Tell whether a setting can be replayed on half of the draws without linearisations."""
    try:
        strategy = _made(name, params, recording.n_draws // 2)
    except UserError:
        return False
    return not strategy.linearises


def _made(name: str, params: Any, draws: int) -> Any:
    spec = load_plugins().strategies.get(name)
    return make_decider(spec, {"draws": draws, **params}).strategy


def _text(params: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _margins(
    errors: halves.Errors, draws: halves.Ints, classes: halves.Ints
) -> NDArray[np.float64]:
    """Return the relative margin of each image's decision on some draws, float64 [I]."""
    means = errors[:, :, draws].mean(axis=2, dtype=np.float64)
    best = np.stack([means[:, classes == c].min(axis=1) for c in np.unique(classes)], axis=1)
    ordered = np.sort(best, axis=1)
    return np.asarray((ordered[:, 1] - ordered[:, 0]) / ordered[:, 0])


def _loses(
    decisions: halves.Ints,
    exhaustive: halves.Ints,
    labels: halves.Ints,
    names: Sequence[str],
    margins: NDArray[np.float64],
) -> Result:
    """Return whom a strategy loses: images that its whole half decides right, and it does not.

    `decisions` and `exhaustive` are int64 [ways, I]; `margins` are those of the other half.
    """
    right, kept = (exhaustive == labels).ravel(), (decisions == labels).ravel()
    lost = right & ~kept
    every = np.tile(labels, len(decisions))
    ranks = margins.argsort(axis=1).argsort(axis=1) * MARGIN_PARTS // margins.shape[1]
    near = lost & (ranks.ravel() == 0)
    return {
        "images": float(lost.sum() / len(decisions)),
        "gains": float((~right & kept).sum() / len(decisions)),
        "share_in_the_lowest_quarter_of_margins": float(near.sum() / lost.sum())
        if lost.any()
        else None,
        "classes": dict(list(halves.lost(right, kept, every, list(names)).items())[:3]),
    }


def beside(stored: Stored) -> list[Result]:
    """Return per dataset the accuracies of all runs, and their error consistency, in pairs."""
    runs = [read_run(recording.path) for recording in stored.recordings] + stored.others
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run in runs:
        data = run.manifest.dataset
        groups.setdefault((f"{data.name}/{data.split}", str(run.manifest.classes)), []).append(run)
    return [_compared(name, members) for (name, _), members in groups.items()]


def _compared(dataset: str, runs: Sequence[StoredRun]) -> Result:
    right = {}
    for run in runs:
        decided = run.decided()
        ids = decided.sample_ids.to_pylist()
        name = _row_name(run, runs)
        right[name] = dict(zip(ids, decided.correct.tolist(), strict=True))
    shared = sorted(set.intersection(*(set(decided) for decided in right.values())))
    table = {name: np.array([decided[i] for i in shared], bool) for name, decided in right.items()}
    names = list(table)
    return {
        "dataset": dataset,
        "images": len(shared),
        "rows": [{"name": name} | _share(values) for name, values in table.items()],
        "error_consistency": [
            {"a": a, "b": b, "kappa": halves.consistency(table[a], table[b])}
            for place, a in enumerate(names)
            for b in names[place + 1 :]
        ]
        if shared
        else [],
    }


def _row_name(run: StoredRun, runs: Sequence[StoredRun]) -> str:
    name = run.manifest.backbone.name
    same = [other for other in runs if other.manifest.backbone.name == name]
    return name if len(same) == 1 else f"{name} ({run.manifest.run_id[-8:]})"
