"""All evidence on screening for one backbone and data set, from recording to the Pareto front.

    python benchmarks/screening.py digits --draws 250 --train 200 --test 360 --out FOLDER
    python benchmarks/screening.py ucmerced --data-dir … --backbone … --draws 100 --out FOLDER
    python benchmarks/screening.py --train-run RUN --test-run RUN --out FOLDER

Records exact and first-order errors of every draw on images of the training split and of the
evaluated one (it resumes when stopped), or takes two such runs. On the training images it learns
the reach for each risk and the timesteps that a race asks for first; all else is measured on the
evaluated images, by replay: how often the exhaustive winner is among the first so many, how well
first-order and exact errors correlate in each fifth of the timesteps, how often a screen lost the
winner against its stated risk, and evaluation equivalents against agreement. Writes
screening.json and screening.png, and prints the tables as Markdown.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np

import bench
from bench.recordings.recording import Recording, open_recording
from bench.recordings.sweep import SweepSetting, sweep
from bench.reports.figures.cost import draw_cost, sweep_panels
from bench.reports.figures.svg import save_figure
from bench.stats.risk import RISKS
from bench.stats.shares import accuracy_interval
from bench_plugins.strategies.race import Race
from bench_plugins.strategies.screen_race import ImageScreens, ScreenRace, winner_reach

SAMPLES = (4, 8, 16)
RANKS = (1, 2, 3, 5, 8)


def record(arguments: argparse.Namespace, split: str | None, limit: int | None) -> Path:
    """Return the folder of a recording, made or gone on with."""
    summary = bench.run(
        arguments.dataset,
        backbone=arguments.backbone,
        strategy="full-linearised",
        params={"draws": arguments.draws},
        split=split,
        limit=limit,
        data_dir=arguments.data_dir,
        seed=arguments.seed,
        save_errors=True,
        results=arguments.out,
    )
    return Path(summary["results_dir"])


def correlations(recording: Recording) -> dict[str, float]:
    """Return, by fifth of the timesteps, the correlation over prompts, averaged over cells."""
    fifths = np.array_split(np.arange(recording.n_draws), 5)
    found: list[list[float]] = []
    for sample in recording.samples():
        tables = recording.tables(sample.sample_id)
        exact, first = (
            table.astype(np.float64) - table.astype(np.float64).mean(axis=0)
            for table in (tables.errors, np.asarray(tables.at_mean))
        )
        each = (exact * first).sum(axis=0) / np.sqrt(
            (exact**2).sum(axis=0) * (first**2).sum(axis=0)
        )
        found.append([float(each[draws].mean()) for draws in fifths])
    steps = recording.problem.timesteps
    names = [f"{steps[draws[0]]}-{steps[draws[-1]]}" for draws in fifths]
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def screens_of(recording: Recording) -> list[ImageScreens]:
    """Return the screens of every image."""
    strategy, found = ScreenRace(draws=recording.n_draws), []
    for sample in recording.samples():
        tables = recording.tables(sample.sample_id)
        errors, first = (np.asarray(table, float) for table in (tables.errors, tables.at_mean))
        found.append(strategy.statistics(recording.problem, errors, first))
    return found


def learned_order(recording: Recording) -> str:
    """Return the band of timesteps that a race learns to ask for first."""
    race, problem = Race(draws=recording.n_draws), recording.problem
    errors = (recording.errors(sample.sample_id) for sample in recording.samples())
    statistics = [race.statistics(problem, table.astype(float), None) for table in errors]
    return str(race.learn(statistics)["order"]["order"])


def recall(images: list[ImageScreens], samples: int) -> list[float]:
    """Return how often the winner is among the first k prompts of a screen, for each of `RANKS`."""
    far = np.array([image.distances[samples] for image in images])
    own = np.array([image.distances[samples][image.winner] for image in images])
    ahead = (far < own[:, None]).sum(axis=1)
    return [float((ahead < k).mean()) for k in RANKS]


def lost(images: list[ImageScreens], samples: int, reach: float) -> tuple[int, float]:
    """Return how many images lose their exhaustive winner to a screen, and the prompts it keeps."""
    missed = sum(image.distances[samples][image.winner] > reach for image in images)
    kept = [(image.distances[samples] <= reach).sum() for image in images]
    return int(missed), float(np.mean(kept))


def settings(reaches: dict[int, list[float]], order: str, n_draws: int) -> list[SweepSetting]:
    """Return what is replayed: each strategy over its dial, screens at the risks learned."""
    chosen: list[SweepSetting] = [("full", {})]
    chosen += [("uniform", {"samples": n}) for n in (2, 4, 8, 16, 32) if n < n_draws]
    deltas = (0.1, 0.02, 0.005)
    chosen += [
        ("race", {"delta": d, "order": bands})
        for d in deltas
        for bands in dict.fromkeys(("even", order))
    ]
    chosen += [
        ("screen-race", {"samples": samples, "reach": reach, "order": bands})
        for samples in SAMPLES
        for reach in dict.fromkeys(reaches.get(samples, []))
        for bands in dict.fromkeys(("even", order))
    ]
    return chosen


def head(*columns: str) -> None:
    """Print the head of a Markdown table."""
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--backbone")
    parser.add_argument("--data-dir")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=int, default=200, help="images of the training split")
    parser.add_argument("--test", type=int, help="images of the evaluated split (default: all)")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--train-run", type=Path)
    parser.add_argument("--test-run", type=Path)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    if arguments.dataset is None and not (arguments.train_run and arguments.test_run):
        parser.error("name a dataset, or both --train-run and --test-run")
    train = arguments.train_run or record(arguments, arguments.train_split, arguments.train)
    test = arguments.test_run or record(arguments, None, arguments.test)
    taught, recording = open_recording(train), open_recording(test)
    learned, measured = screens_of(taught), screens_of(recording)
    order, n = learned_order(taught), len(measured)
    print(f"\n{recording.manifest.run_id}: {n} images, {recording.n_draws} draws;")
    print(f"calibrated on {len(learned)} images of {taught.manifest.run_id};")
    print(f"a linearised draw cost {recording.linearisation_cost:.2f} evaluations.")
    head("draws", "winner among the first 1", "2", "3", "5", "8, %")
    recalls = {samples: recall(measured, samples) for samples in measured[0].distances}
    for samples, shares in recalls.items():
        print(f"| {samples} | {' | '.join(f'{100 * share:.0f}' for share in shares)} |")
    by_fifth = correlations(recording)
    head("timesteps", "correlation of first-order and exact errors")
    for fifth, value in by_fifth.items():
        print(f"| {fifth} | {value:.2f} |")
    head("draws", "risk stated", "reach", "prompts kept", "winner lost, % (95 %)")
    losses, reaches = [], dict[int, list[float]]()
    for samples, risk in product(SAMPLES, RISKS):
        reach = winner_reach(learned, samples, risk) if samples in recalls else np.inf
        if np.isinf(reach):
            continue
        reaches.setdefault(samples, []).append(reach)
        missed, kept = lost(measured, samples, reach)
        low, high = accuracy_interval(missed, n)
        losses.append({"samples": samples, "risk": risk, "reach": reach, "lost": missed / n})
        print(
            f"| {samples} | {risk} | {reach:.2f} | {kept:.1f}"
            f" | {100 * missed / n:.1f} ({100 * low:.1f}–{100 * high:.1f}) |"
        )
    rows = sweep(test, settings(reaches, order, recording.n_draws))
    head("", "strategy", "equivalents per image", "agreement, % (95 %)", "accuracy, %")
    for row in sorted(rows, key=lambda r: r.cost):
        params = row.summary.strategy.params
        dial = " ".join(
            f"{k}={params[k] if isinstance(params[k], str) else round(params[k], 3)}"
            for k in ("samples", "reach", "delta", "order")
            if k in params
        )
        low, high = row.agreement_ci95
        print(
            f"| {'*' if row.pareto else ''} | {row.summary.strategy.name} {dial}"
            f" | {row.cost:,.1f}"
            f" | {100 * row.agreement:.1f} ({100 * low:.1f}–{100 * high:.1f})"
            f" | {100 * row.summary.metrics.accuracy:.1f} |"
        )
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    evidence = {
        "order": order,
        "recall": recalls,
        "correlation": by_fifth,
        "lost": losses,
        "rows": [row.plain() for row in rows],
    }
    (out / "screening.json").write_text(json.dumps(evidence, indent=1), "utf-8")
    save_figure(draw_cost(sweep_panels(rows)).figure(), out / "screening.png")


if __name__ == "__main__":
    main()
