"""Other noise: what is said of the decisions that differ between two runs, and what differs.

    python benchmarks/uncertainty.py tables [--seeds 8] [--images 300]
    python benchmarks/uncertainty.py digits --results DIR [--seeds 8] [--images 100] [--draws 16]
    python benchmarks/uncertainty.py ucmerced --results DIR [--seeds 6] [--images 42] [--draws 8]

`tables` takes made-up errors, numpy only, about a minute per regime. The others record a full sweep
with errors per seed, resumed where it was interrupted, and replay every strategy on each of them:
the sizes above took 100 to 250 s per seed on one core of a busy machine.

A row has, in decisions of all images:

* seen: the mean over all pairs of seeds of the decisions that differ, with its standard error by
  the jackknife over seeds, since pairs that share a seed are dependent;
* estimate: what the toolkit prints for fixed draws, the mean over seeds, and its difference from
  what was seen, with the jackknife's standard error of that difference; it prints none for fewer
  than 16 draws;
* again: for strategies that stop early, what `--again 60` prints, each of the images decided again
  with the noise of another seed taken at random, and in how many of 20 choices per seed the
  interval contains the mean over all other seeds of what differs from that run;
* Phi: the sum of Phi(-m / (s sqrt(2))), which was printed for every strategy before, over the
  images whose margin has a standard error, and how many these are;
* spread: the standard deviation of the accuracy over seeds in points, and what it would be if the
  images' decisions changed independently of each other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from helpers.places import UCMERCED
from numpy.typing import NDArray

import bench
from bench.contracts.dataset import Sample
from bench.contracts.draw_order import timestep_grid
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.recordings.recording import Tables, open_recording
from bench.recordings.replay import decide
from bench.running.parts.decision import make_decider
from bench.stats.calibration.agreement import flip_probability, repeatability
from bench.stats.inference.shares import exact_interval
from bench.store.formats.decisions import Decisions, as_decisions
from bench.store.formats.journal import make_record

AGAIN = 60
REPEATS = 20  # choices of the images, per seed
SIZES = {"digits": (8, 100, 16), "ucmerced": (6, 42, 8), "tables": (8, 300, 40)}
REGIMES = {"spread": 0.02, "close": 0.005, "tied": 0.0}
NOISE = 0.02  # standard deviation of an error's own part on one draw

Image = tuple[Sample, Tables, Problem]


def settings(draws: int, linearised: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the strategies that are compared on so many draws."""
    found: list[tuple[str, dict[str, Any]]] = [
        ("full", {}),
        ("uniform", {"samples": max(2, draws // 2)}),
        ("uniform", {"samples": max(2, draws // 8)}),
        ("vote", {}),
        ("adaptive", {"samples": (max(2, draws // 10), draws), "keep": (5, 1)}),
        ("halving", {"budget": max(2, draws // 8)}),
        ("paired-ttest", {"min_scores": min(5, draws // 2)}),
        ("race", {}),
        ("race", {"first": 2}),
        ("race", {"first": 2, "delta": 0.2}),
        ("race", {"ceiling": "published"}),
        ("race", {"bound": "betting"}),
    ]
    more: list[tuple[str, dict[str, Any]]] = [
        ("full-linearised", {}),
        ("screen-race", {"first": 2}),
    ]
    return [*found, *more] if linearised else found


def recorded(dataset: str, results: str, seeds: int, images: int, draws: int) -> list[list[Image]]:
    """Return the images of one full sweep per seed."""
    more: dict[str, Any] = {"data_dir": str(UCMERCED)} if dataset == "ucmerced" else {}
    sweeps = []
    for seed in range(seeds):
        run = bench.run(
            dataset,
            strategy="full-linearised",
            params={"draws": draws},
            seed=seed,
            limit=images,
            save_errors=True,
            batch_size=64,
            results=results,
            **more,
        )
        found = open_recording(Path(run["results_dir"]))
        sweeps.append([(s, *found.tables_and_problem(s)) for s in found.subset(images)])
    return sweeps


def made_up(regime: str, seeds: int, images: int, draws: int, prompts: int = 10) -> list[Any]:
    """Return made-up tables: prompts whose expected errors spread by so much, and other noise."""
    rng = np.random.default_rng(0)
    levels = np.linspace(0.8, 0.1, draws)
    expected = REGIMES[regime] * rng.standard_normal((images, prompts, 1))
    problem = Problem(np.arange(prompts), timestep_grid(draws, 1000), np.ones(draws))
    sweeps = []
    for seed in range(seeds):
        own = replace(problem, seed=seed)
        shape = (images, prompts, draws)
        errors = levels + expected + NOISE * rng.standard_normal(shape)
        sweeps.append(
            [
                (Sample(str(i), int(expected[i].argmin()), {}), Tables(table), own)
                for i, table in enumerate(errors.astype(np.float32))
            ]
        )
    return sweeps


def jackknife(statistic: Callable[[NDArray[np.int64]], float], seeds: int) -> tuple[float, float]:
    """Return a statistic of all seeds, and its standard error with one seed left out at a time."""
    every = np.arange(seeds)
    left = np.array([statistic(np.delete(every, seed)) for seed in every])
    return statistic(every), float(np.sqrt((seeds - 1) / seeds * ((left - left.mean()) ** 2).sum()))


def row(strategy: CheckedStrategy, sweeps: Sequence[Sequence[Image]]) -> list[str]:
    """Return the cells of one strategy's row, but for its name."""
    runs: list[Decisions] = [
        as_decisions([make_record(decide(s, t, strategy, p), 0.0) for s, t, p in sweep])
        for sweep in sweeps
    ]
    assert not any(run.failed.any() for run in runs)
    count = len(runs)
    answers = np.array([run.predictions for run in runs])  # [S, n]
    differ = (answers[:, None] != answers).sum(axis=2)  # [S, S]

    def seen(kept: NDArray[np.int64]) -> float:
        return float(differ[np.ix_(kept, kept)].sum() / (len(kept) * (len(kept) - 1)))

    mean, stderr = jackknife(seen, count)
    cells = [
        f"{np.mean([run.equivalents.mean() for run in runs]):,.0f}",
        f"{mean:.2f} ± {stderr:.2f}",
    ]
    if strategy.same_draws:
        parts = [repeatability(replace(run, draws=None)) for run in runs]
        printed = "" if repeatability(runs[0]) else ", not printed"
        estimates = np.array([np.nan if part is None else part.expected_flips for part in parts])
        gap, of_gap = jackknife(lambda kept: float(estimates[kept].mean()) - seen(kept), count)
        cells += [f"{estimates.mean():.2f} ({gap:+.2f} ± {of_gap:.2f}){printed}", ""]
    else:
        estimates, inside = measured(answers, differ)
        cells += ["", f"{estimates.mean():.2f} ({inside} of {estimates.size})"]
    old = np.array([flip_probability(run.margins, run.margin_stderr) for run in runs])
    of = np.isfinite(old).sum(axis=1).mean()
    cells.append(f"{np.nansum(old, axis=1).mean():.2f} of {of:.0f}")
    right = np.array([run.correct for run in runs])  # [S, n]
    spread = right.mean(axis=1).std(ddof=1)
    alone = np.sqrt(right.var(axis=0, ddof=1).sum()) / right.shape[1]
    return [*cells, f"{100 * spread:.2f}, {100 * alone:.2f}"]


def measured(
    answers: NDArray[np.int64], differ: NDArray[np.int64]
) -> tuple[NDArray[np.float64], int]:
    """Return what `--again` estimates for each seed, and how many intervals hold what it is of."""
    rng = np.random.default_rng(1)
    seeds, n = answers.shape
    estimates, inside = np.zeros((REPEATS, seeds)), 0
    for repeat, seed in np.ndindex(REPEATS, seeds):
        chosen = rng.choice(n, min(AGAIN, n), replace=False)
        others = rng.choice(np.delete(np.arange(seeds), seed), len(chosen))
        changed = int((answers[others, chosen] != answers[seed, chosen]).sum())
        low, high = exact_interval(changed, len(chosen))
        estimates[repeat, seed] = n * changed / len(chosen)
        inside += bool(n * low <= differ[seed].sum() / (seeds - 1) <= n * high)
    return estimates, inside


def main() -> None:
    """Print a Markdown table per dataset or regime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=sorted(SIZES))
    parser.add_argument("--results", default="results")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--draws", type=int)
    given = parser.parse_args()
    asked = (given.seeds, given.images, given.draws)
    seeds, images, draws = (
        usual if own is None else own for own, usual in zip(asked, SIZES[given.what], strict=True)
    )
    if given.what == "tables":
        sources = {name: made_up(name, seeds, images, draws) for name in REGIMES}
    else:
        sources = {given.what: recorded(given.what, given.results, seeds, images, draws)}
    registry = load_plugins().strategies
    for name, sweeps in sources.items():
        print(f"\n{name}: {len(sweeps[0])} images, {draws} draws, {seeds} seeds\n")
        print("| strategy | cost | seen | estimate | again | Phi | spread, points |")
        print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
        for strategy, params in settings(draws, linearised=given.what != "tables"):
            made = make_decider(registry.get(strategy), {"draws": draws, **params}).strategy
            said = " ".join([strategy, *(f"{k}={v}" for k, v in params.items())])
            print(f"| {said} | {' | '.join(row(made, sweeps))} |", flush=True)


if __name__ == "__main__":
    main()
