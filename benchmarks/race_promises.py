"""How often each bound of `race` loses the full sweep's winner, where all classes are tied.

    python benchmarks/race_promises.py [--gap 0.5]

No model, numpy only; some minutes. Each class's errors are shifted so that all classes have the
same mean over the draws, and the winner is ahead by next to nothing: the hardest case, in which a
bound is wrong whenever it drops the winner. With `--gap`, the winner is ahead by so many standard
deviations of a paired difference. A cell is the share of tables on which the race decides
otherwise than the full sweep, and its cost in % of the full sweep's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.draw_order import timestep_grid
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.recordings.replay import decide
from bench.running.parts.decision import make_decider

Tables = list[NDArray[np.float32]]

KINDS = ("normal", "trend", "lognormal", "rare spikes", "t2")
DRAWS = 50
TIE = 1e-3  # lead of a tied winner, in standard deviations of a paired difference
SPAN, DEVIATION, HALF = "largest", "true", "half"  # measured on the tables
SCHEDULE, FALLBACK = "adaptive", "race ceiling=published first=2 delta=0.001"
SETTINGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("adaptive", {}),
    ("race", {}),
    ("race", {"delta": 1e-4}),
    ("race", {"order": "0-499"}),
    ("race", {"first": 1, "deviation": DEVIATION}),
    ("race", {"first": 1, "deviation": HALF}),
    ("race", {"ceiling": "published", "first": 2, "delta": 1e-3}),
    ("race", {"bound": "betting"}),
    ("race", {"bound": "betting", "delta": 0.05}),
    ("race", {"bound": "betting", "delta": 0.05, "span": SPAN}),
)


class Share(NamedTuple):
    """What became of the tables of a kind under a setting.

    Attributes:
        lost: bool [n], on which the decision differs from the full sweep's.
        cost: evaluations, as a share of the full sweep's.
    """

    lost: NDArray[np.bool_]
    cost: float

    def __str__(self) -> str:
        return f"{100 * self.lost.mean():.1f} ({100 * self.cost:.0f})"


def noise(kind: str, classes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return float64 [classes, DRAWS] of a kind.

    trend: a slope of each class's own along the levels, of up to a few standard deviations.
    rare spikes: about one error in 25 is higher by 100 standard deviations of the others.
    t2: Student's t with two degrees of freedom, which has no variance.
    """
    shape = (classes, DRAWS)
    if kind == "lognormal":
        return rng.lognormal(size=shape)
    if kind == "t2":
        return rng.standard_t(2, size=shape)
    errors = rng.standard_normal(shape)
    if kind == "trend":
        errors += rng.standard_normal((classes, 1)) * np.linspace(-3, 3, DRAWS)
    elif kind == "rare spikes":
        errors += 100.0 * (rng.random(shape) < 0.04)
    return errors


def made_up(kind: str, classes: int, count: int, gap: float, seed: int = 0) -> Tables:
    """Return `count` tables of errors, float32 [classes, DRAWS], with the winner ahead by `gap`."""
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(count):
        errors = noise(kind, classes, rng)
        errors -= errors.mean(axis=1, keepdims=True)
        errors[1:] += gap * np.sqrt(2) * errors.std()
        tables.append(rng.permutation(errors).astype(np.float32))
    return tables


def measured(tables: Tables, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in which span and deviation are numbers, those of the tables."""
    deviation = np.sqrt(2 * np.mean([table.var(axis=1).mean() for table in tables]))
    values = {
        SPAN: max(float(np.ptp(table, axis=0).max()) for table in tables),
        DEVIATION: float(deviation),
        HALF: float(deviation / 2),
    }
    return {
        name: values.get(value, value) if name in ("span", "deviation") else value
        for name, value in params.items()
    }


def share(tables: Tables, name: str, params: Mapping[str, Any]) -> Share:
    """Return how a strategy decides the tables; each has a seed, and so a random order, of its own.

    Args:
        tables: the errors.
        name: the strategy's.
        params: its parameters besides the number of draws.
    """
    spec = load_plugins().strategies.get(name)
    strategy = make_decider(spec, {"draws": DRAWS, **measured(tables, params)}).strategy
    lost, evaluations = [], 0
    for seed, errors in enumerate(tables):
        classes = np.arange(len(errors))
        problem = Problem(classes, timestep_grid(DRAWS, 1000), np.ones(DRAWS), seed)
        decided = decide(Sample("", 0, {}), errors, strategy, problem)
        assert decided.outcome is not None
        evaluations += decided.evaluations
        winner = errors.astype(np.float64).mean(axis=1).argmin()
        lost.append(decided.outcome.ranking[0] != winner)
    return Share(np.array(lost), evaluations / sum(errors.size for errors in tables))


def label(name: str, params: Mapping[str, Any]) -> str:
    """Return how a row is called."""
    return " ".join([name, *(f"{key}={value}" for key, value in params.items())])


def main() -> None:
    """Print a Markdown table for each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=400, help="of each kind")
    parser.add_argument("--gap", type=float, default=TIE, help="the winner's lead")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for classes in (2, 10):
        print(f"\n{classes} classes, {DRAWS} draws, {arguments.tables} tables of each kind\n")
        print("| setting | " + " | ".join(KINDS) + " |\n|---" + "|--:" * len(KINDS) + "|")
        made = [made_up(k, classes, arguments.tables, arguments.gap, arguments.seed) for k in KINDS]
        schedule: list[Share] = []
        for name, params in SETTINGS:
            shares = [share(tables, name, params) for tables in made]
            print(f"| {label(name, params)} | " + " | ".join(map(str, shares)) + " |", flush=True)
            if name == SCHEDULE:
                schedule = shares
            elif label(name, params) == FALLBACK:
                kept = [
                    f"{100 * (of.lost & ~published.lost).mean():.1f}"
                    for of, published in zip(shares, schedule, strict=True)
                ]
                print("| … winners that adaptive keeps | " + " | ".join(kept) + " |", flush=True)


if __name__ == "__main__":
    main()
