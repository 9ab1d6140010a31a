"""Cost and agreement of all strategies where prompts can hardly be told apart, on made-up tables.

    python benchmarks/hard_regimes.py

No model, numpy only; a few minutes. A cell is the mean cost in evaluations per image, the agreement
with the exhaustive decision on the same table and, in brackets, how many points that is above
`adaptive`, paired table by table, with its 95 % interval (Tango).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.inputs.draws import timestep_grid
from bench.recordings.replay import decide
from bench.running.parts.decision import make_strategy
from bench.stats.paired import paired_test

REGIMES = ("pure noise", "near-tied", "near duplicates", "paraphrases")
STRATEGIES: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("adaptive", {}),
    ("uniform", {"samples": 8}),
    ("halving", {"budget": 8}),
    ("race", {}),
    ("race", {"delta": 1e-4}),
    ("race", {"ceiling": "adaptive"}),
    ("race", {"ceiling": "adaptive", "delta": 1e-4}),
    ("race", {"ceiling": "schedule"}),
    ("race", {"ceiling": "schedule", "delta": 1e-3}),
]
SIZES = ((10, 20, 1000), (21, 40, 1000), (100, 20, 400), (10, 250, 300), (1000, 100, 15))


def table(regime: str, prompts: int, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return errors, float32 [P, N]: a part that all prompts share, and a small one of their own.

    pure noise: nothing else than noise. near-tied: levels that differ by a tenth of the noise of
    one draw. near duplicates: noise and levels that differ forty times less than the shared part.
    paraphrases: groups of about five prompts that are nearly the same.
    """
    shared = np.linspace(0.8, 0.1, draws) + 0.1 * rng.standard_normal(draws)
    own = 0.02 * rng.standard_normal((prompts, draws))
    if regime == "near-tied":
        own += 0.002 * rng.standard_normal((prompts, 1))
    elif regime == "near duplicates":
        own = 0.05 * own + 0.0005 * rng.standard_normal((prompts, 1))
    elif regime == "paraphrases":
        groups = max(2, prompts // 5)
        each = 0.02 * rng.standard_normal((groups, draws))
        each += 0.01 * rng.standard_normal((groups, 1))
        own = each[rng.integers(groups, size=prompts)] + 0.002 * own
    return np.asarray(shared + own, np.float32)


def main() -> None:
    """Print a Markdown table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    registry = load_plugins().strategies
    for prompts, draws, count in SIZES:
        problem = Problem(np.arange(prompts), timestep_grid(draws, 1000), np.ones(draws))
        print(f"\n{prompts} prompts, {draws} draws, {count} tables per regime\n")
        rows: dict[str, list[str]] = {}
        for regime in REGIMES:
            rng = np.random.default_rng(arguments.seed)
            made = [table(regime, prompts, draws, rng) for _ in range(count)]
            truth = [int(errors.astype(np.float64).mean(axis=1).argmin()) for errors in made]
            schedule: NDArray[np.bool_] | None = None
            for name, params in STRATEGIES:
                strategy = make_strategy(registry.get(name), {"draws": draws, **params})[1]
                decided = [decide(Sample("", 0, {}), e, strategy, problem) for e in made]
                outcomes = [d.outcome for d in decided if d.outcome is not None]
                right = np.array(
                    [o.ranking[0] == best for o, best in zip(outcomes, truth, strict=True)]
                )
                cost = np.mean([d.equivalents for d in decided])
                cell = f"{cost:,.0f}, {100 * right.mean():.1f} %"
                if schedule is not None:
                    cell += f" ({_points(schedule, right)})"
                schedule = right if name == "adaptive" else schedule
                label = " ".join([name, *(f"{k}={v}" for k, v in params.items())])
                rows.setdefault(label, []).append(cell)
        print("| strategy | " + " | ".join(REGIMES) + " |")
        print("|---" * (1 + len(REGIMES)) + "|")
        for label, cells in rows.items():
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def _points(schedule: NDArray[np.bool_], right: NDArray[np.bool_]) -> str:
    found = paired_test(schedule, right)
    low, high = found.difference_ci95
    return f"{100 * found.difference:+.1f}: {100 * low:+.1f} to {100 * high:+.1f}"


if __name__ == "__main__":
    main()
