"""What a draw plan does to the variance of the scores and to the cost of a race.

    python benchmarks/plans.py RUN_GRID RUN_REPEATED RUN_ANTITHETIC …

Each RUN is a folder made with `bench run … --strategy full --save-errors --plan PLAN`, on the same
images and with the same number of draws. The variance is that of the mean of two draws, of paired
differences between the exhaustive winner and its three closest rivals, less their trend along the
timesteps (successive differences); two draws that share a timestep where the plan pairs them, two
neighbouring ones where it does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bench.contracts.dataset import Sample
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import decide, decider_for
from bench.stats.shares import accuracy_interval

RIVALS = 3
LEVELS = (0.02, 0.05, 0.1)


def pair_variances(recording: Recording) -> np.ndarray:
    """Return float64 [images]: the variance of the mean of a pair of draws."""
    variances = []
    for sample in recording.samples():
        errors = recording.errors(sample.sample_id).astype(np.float64)
        order = errors.mean(axis=1).argsort()
        differences = errors[order[1 : RIVALS + 1]] - errors[order[0]]
        pairs = differences[:, : recording.n_draws // 2 * 2]
        means = (pairs[:, 0::2] + pairs[:, 1::2]) / 2
        variances.append(np.square(np.diff(means, axis=1)).mean() / 2)
    return np.array(variances)


def races(recording: Recording, label: str) -> None:
    """Print what a race costs at several levels, and how often it decides as all draws do."""
    samples = recording.samples()
    tables = [recording.errors(sample.sample_id) for sample in samples]
    truth = [int(table.astype(np.float64).mean(axis=1).argmin()) for table in tables]
    for delta in LEVELS:
        strategy = decider_for(recording, "race", {"delta": delta, "order": "even"}).strategy
        decided = [decide(Sample("", 0, {}), t, strategy, recording.problem) for t in tables]
        equal = sum(
            d.outcome is not None and d.outcome.ranking[0] == best
            for d, best in zip(decided, truth, strict=True)
        )
        low, high = accuracy_interval(equal, len(tables))
        cost = sum(d.evaluations for d in decided) / len(tables)
        print(
            f"{label:20s} race delta={delta:<5} {cost:8.1f} evaluations per image, agreement"
            f" {equal / len(tables):.3f} ({low:.3f}-{high:.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    recordings = [open_recording(path) for path in parser.parse_args().runs]
    first: np.ndarray | None = None
    for recording in recordings:
        label = recording.manifest.identity.scoring.draw_plan or "grid"
        variances = pair_variances(recording)
        first = variances if first is None else first
        ratio = np.median(variances / first)
        print(
            f"{label:20s} n={len(variances)}, variance of a pair's mean {variances.mean():.3e},"
            f" {variances.mean() / first.mean():.2f} of the first (median ratio {ratio:.2f})"
        )
        races(recording, label)


if __name__ == "__main__":
    main()
