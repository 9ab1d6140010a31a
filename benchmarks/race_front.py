"""What a bound of `race` costs, and how many winners it loses, in easy and in hard regimes.

    python benchmarks/race_front.py [--recordings DIR] [--tables 2000] [--plot race-front.png]

No model, numpy only; minutes. Made-up tables (`race_promises.py`) have 2, 5, 10 or 21 classes, all
tied or with the winner ahead by half a standard deviation of a paired difference. `DIR` is that of
`race_recordings.py`. A cell is the points by which a candidate decides otherwise than the full
sweep more often than `adaptive`, the published schedule, does on the same tables, and in brackets
its cost in % of `adaptive`'s. Learned odds, the candidates c of design/racing.md, were removed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from numpy.typing import NDArray

from bench.inputs.draws import timestep_grid
from bench.recordings.recording import open_recording
from bench.stats.paired import paired_test
from benchmarks.race_promises import DRAWS, KINDS, TIE, made_up
from benchmarks.race_recordings import INDEX, REGIMES
from benchmarks.race_replay import (
    Decisions,
    Floats,
    adaptive,
    dial,
    race,
    spending,
)

CLASSES = (2, 5, 10, 21)
LEADS = {"tied": TIE, "ahead": 0.5}
SWEPT = 150  # made-up tables that are left out, because the odds of design/racing.md knew them
MARGIN = 0.02  # by which no candidate should be inferior to the schedule


class Tables(NamedTuple):
    """Errors of a regime.

    Attributes:
        kind: `tied`, `ahead` or `recorded`.
        name: the regime's.
        errors: float64 [B, P, N], weighted.
        timesteps: int64 [N].
        first: draws before the first look of today's race.
        bands: levels that today's race asks for first.
    """

    kind: str
    name: str
    errors: Floats
    timesteps: NDArray[np.int64]
    first: int = 4
    bands: str = "even"

    def raced(self, rule: Any, **more: Any) -> Decisions:
        """Return what a race decides."""
        within = {"first": 2, "published": True, **more}
        return race(self.errors, rule, timesteps=self.timesteps, bands=self.bands, **within)

    def today(self, delta: float) -> Decisions:
        """Return what a race without a ceiling decides."""
        return self.raced(dial(delta), first=self.first, published=False)


Candidate = Callable[[Tables], Decisions]
CANDIDATES: dict[str, Candidate] = {
    "race": lambda tables: tables.today(0.02),
    "race delta=0.0001": lambda tables: tables.today(1e-4),
    "old ceiling=schedule delta=0.001": lambda tables: tables.raced(dial(1e-3, shared=True)),
    "a: estimated prior": lambda t: t.raced(spending(1e-3, memory=True, estimated=True)),
    "b: level spent over looks": lambda tables: tables.raced(spending(1e-3, memory=False)),
    "d: ceiling=published delta=0.001": lambda tables: tables.raced(spending(1e-3, memory=True)),
}


class Measured(NamedTuple):
    """A candidate on a regime.

    Attributes:
        points: share of tables that it decides otherwise than the full sweep, less `adaptive`'s.
        interval: its 95 % interval (Tango).
        cost: evaluations per table.
        relative: its cost over `adaptive`'s.
    """

    points: float
    interval: tuple[float, float]
    cost: float
    relative: float

    def __str__(self) -> str:
        return f"{100 * self.points:+.1f} ({100 * self.relative:.0f})"


def regimes(tables: int, recordings: Path | None) -> Iterator[Tables]:
    """Yield the tables of each regime."""
    if recordings is not None:
        folders = json.loads((recordings / INDEX).read_text("utf-8"))
        for name, regime in REGIMES.items():
            if name in folders:
                recording = open_recording(recordings / folders[name])
                problem = recording.problem
                errors = [recording.errors(s.sample_id) for s in recording.samples()]
                weighted = np.array(errors, np.float64) * problem.weights
                more = (regime.first, regime.bands)
                yield Tables("recorded", name, weighted, problem.timesteps, *more)
    grid = timestep_grid(DRAWS, 1000)
    for kind, lead in LEADS.items():
        for classes in CLASSES:
            for noise in KINDS:
                made = np.array(made_up(noise, classes, tables + SWEPT, lead), np.float64)
                name = f"{noise}, {classes} classes"
                yield Tables(kind, name, made[SWEPT:], grid)


def measured(tables: Tables) -> tuple[str, dict[str, Measured]]:
    """Return a regime's row head, and every candidate on it."""
    truth = tables.errors.mean(axis=2).argmin(axis=1)
    schedule = adaptive(tables.errors)
    lost = 100 * (schedule.winners != truth).mean()
    head = f"{tables.kind}: {tables.name} | {len(truth):,} | {lost:.1f} ({schedule.costs[0]:,.0f})"
    rows = {}
    for name, candidate in CANDIDATES.items():
        decided = candidate(tables)
        found = paired_test(schedule.winners == truth, decided.winners == truth)
        low, high = found.difference.interval
        cost = float(decided.costs.mean())
        relative = cost / float(schedule.costs.mean())
        rows[name] = Measured(0 - found.difference.estimate, (-high, -low), cost, relative)
    return head, rows


def summary(name: str, kinds: list[str], rows: list[Measured]) -> str:
    """Return a candidate's worst regimes, in words, per kind of regime."""
    cells = []
    for kind in dict.fromkeys(kinds):
        of_kind = [row for row, other in zip(rows, kinds, strict=True) if other == kind]
        worst = max(of_kind, key=lambda row: row.points)
        low, high = (100 * end for end in worst.interval)
        inferior = sum(row.points > MARGIN for row in of_kind)
        cells.append(
            f"{100 * worst.points:+.1f} ({low:+.1f} to {high:+.1f}), {inferior} of {len(of_kind)};"
            f" {100 * np.mean([row.relative for row in of_kind]):.0f} ≤"
            f" {100 * max(row.relative for row in of_kind):.0f}"
        )
    return f"| {name} | " + " | ".join(cells) + " |"


def plot(kinds: list[str], measures: dict[str, list[Measured]], file: Path) -> None:
    """Draw cost against lost winners, a panel per kind of regime."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys(kinds))
    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.6), sharey=True)
    for axis, panel in zip(np.atleast_1d(axes), panels, strict=True):
        axis.axhspan(-100, 100 * MARGIN, xmax=1, color="0.95", zorder=-2)
        axis.axvline(100, color="0.7", linewidth=1)
        axis.axhline(0, color="0.7", linewidth=1)
        for number, (name, rows) in enumerate(measures.items()):
            of_panel = [row for row, kind in zip(rows, kinds, strict=True) if kind == panel]
            x = [100 * row.relative for row in of_panel]
            y = [100 * row.points for row in of_panel]
            marker = "osv^DPX*<"[number % 9]
            axis.plot(x, y, marker, label=name, color=f"C{number}", markersize=5, alpha=0.8)
        axis.set(xscale="log", yscale="symlog", title=panel, xlabel="cost, % of adaptive's")
        ticks = (-50, -20, -5, -2, 0, 2, 5, 20, 50)
        axis.set_yticks(ticks, labels=[str(tick) for tick in ticks])
    np.atleast_1d(axes)[0].set_ylabel("winners lost beyond adaptive's, points")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(file, dpi=120)


def main() -> None:
    """Print a row per regime and a summary per candidate; draw the front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=Path)
    parser.add_argument("--tables", type=int, default=2000, help="made-up tables per regime")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print("| regime | n | adaptive | " + " | ".join(CANDIDATES) + " |")
    print("|---|--:|--:" + "|--:" * len(CANDIDATES) + "|")
    kinds: list[str] = []
    measures: dict[str, list[Measured]] = {name: [] for name in CANDIDATES}
    for tables in regimes(arguments.tables, arguments.recordings):
        head, rows = measured(tables)
        print(f"| {head} | " + " | ".join(str(row) for row in rows.values()) + " |", flush=True)
        kinds.append(tables.kind)
        for name, row in rows.items():
            measures[name].append(row)
    print("\nWorst points (95 %), regimes above two; mean cost and largest, % of adaptive's\n")
    print("| candidate | " + " | ".join(dict.fromkeys(kinds)) + " |")
    print("|---" + "|--:" * len(set(kinds)) + "|")
    for name, measures_of in measures.items():
        print(summary(name, kinds, measures_of))
    if arguments.plot:
        plot(kinds, measures, arguments.plot)


if __name__ == "__main__":
    main()
