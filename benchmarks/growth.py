"""How the cost of each strategy grows with the number of classes, from recorded errors.

    python benchmarks/growth.py RUN [--order 570-614] [--plot growth.png]

RUN is a folder made with `bench run … --strategy full --save-errors`. An image keeps its
exhaustive winner; its K - 1 rivals are drawn, with replacement, from the differences between a
rival and the winner of *any* recorded image, added to this image's winner. So the rivals are real
ones, correlated over the draws as they are, but independent of each other: classes that resemble
each other in groups would be harder. Among more rivals there are closer ones, and that is shown;
agreement is with the exhaustive decision on the same made-up table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Problem
from bench.recordings.recording import open_recording
from bench.recordings.replay import decide, decider_for
from bench.stats.shares import accuracy_interval

CLASSES = (10, 21, 50, 100, 200, 500, 1000)


def settings(n_draws: int, order: str | None) -> list[tuple[str, dict[str, object]]]:
    """Return what is compared; each at a level that decides well."""
    chosen: list[tuple[str, dict[str, object]]] = [
        ("adaptive", {"samples": (n_draws // 10, n_draws), "keep": (5, 1)}),
        ("uniform", {"samples": 32}),
        ("halving", {"budget": 16}),
        ("paired-ttest", {}),
        ("race", {"delta": 0.02}),
        ("race", {"delta": 0.002}),
        ("race", {"bound": "betting", "delta": 0.05}),
    ]
    return chosen + ([("race", {"delta": 0.02, "order": order})] if order else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--order")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    recording = open_recording(arguments.run)
    samples = recording.samples()[: arguments.images]
    tables = [recording.errors(s.sample_id) for s in samples]
    winners = np.stack([table[table.mean(axis=1).argmin()] for table in tables])
    differences = np.concatenate(
        [
            np.delete(table, table.mean(axis=1).argmin(), axis=0) - winner
            for table, winner in zip(tables, winners, strict=True)
        ]
    )
    n_draws = recording.n_draws
    curves: dict[str, list[float]] = {}
    for n_classes in CLASSES:
        problem = Problem(np.arange(n_classes), recording.problem.timesteps, np.ones(n_draws))
        rng = np.random.default_rng(n_classes)
        made = []
        for winner in winners:
            rivals = differences[rng.integers(len(differences), size=n_classes - 1)]
            made.append(rng.permutation(np.concatenate([winner[None], winner + rivals])))
        truth = [int(table.astype(float).mean(axis=1).argmin()) for table in made]
        for name, params in settings(n_draws, arguments.order):
            strategy = decider_for(recording, name, params).strategy
            evaluations = equal = 0
            for table, best in zip(made, truth, strict=True):
                decided = decide(Sample("", 0, {}), table, strategy, problem)
                evaluations += decided.evaluations
                equal += decided.outcome is not None and decided.outcome.ranking[0] == best
            label = " ".join([name, *(f"{key}={value}" for key, value in params.items())])
            curves.setdefault(label, []).append(evaluations / len(made))
            low, high = accuracy_interval(equal, len(made))
            print(
                f"K={n_classes:5d} {label:45s} {evaluations / len(made):11,.1f} evaluations an"
                f" image, {evaluations / len(made) / n_classes:7.2f} a class, agreement"
                f" {equal / len(made):.3f} ({low:.3f}-{high:.3f})",
                flush=True,
            )
    if arguments.plot:
        _plot(curves, arguments.plot)


def _plot(curves: dict[str, list[float]], file: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for label, costs in curves.items():
        axes.loglog(CLASSES, costs, marker="o", label=label)
    axes.set_xlabel("classes")
    axes.set_ylabel("evaluations per image")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
