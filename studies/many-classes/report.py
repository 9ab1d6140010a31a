"""Rows, table, figure and decision of the study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.stats.inference.paired import difference_interval
from bench.stats.inference.variance import spread

Floats = NDArray[np.float64]
Estimate = tuple[float, float, float]  # a mean, and the ends of its 95 % interval
OWN = ("screening", "shortlist")  # strategies that look with a gradient, or with another model
NOT_PLAYED = ("full", "clairvoyant", "nearest picture")
AGREEMENT = 0.98  # lower end, from which on a strategy may be the one that screening must beat
RESAMPLES = 2000
COST_RATIO, MORE_LOST = 0.5, 0.01  # of screening, at most, for it to stay


@dataclass(frozen=True)
class Played:
    """Decisions of one setting: [images, repeats] whether as the sweep, right, exact; and costs."""

    same: NDArray[np.bool_]
    right: NDArray[np.bool_]
    exact: NDArray[np.bool_]
    costs: Floats


@dataclass(frozen=True)
class Row:
    """What one setting did on one kind of question.

    Intervals are over images, each with its own subsets and draws. `exact` is the agreement with
    the class whose upright picture is nearest, which is exact for the analytic model. `cost` is in
    evaluations per image. The last four compare with the cheapest strategy that needs neither
    gradients nor another model: the ratio of costs, and the share of decisions that agree with the
    sweep there and not here, less that of the reverse (Tango's interval, draws of seed 0), and the
    same of right decisions.
    """

    model: str
    kind: str
    classes: int
    strategy: str
    setting: str
    chosen: bool
    images: int
    decisions: int
    agreement: Estimate
    accuracy: Estimate
    exact: float
    cost: Estimate
    rival: str = ""
    ratio: Estimate | None = None
    more_lost: Estimate | None = None
    less_right: Estimate | None = None


def rows_of(
    model: str,
    kind: str,
    k: int,
    played: Mapping[tuple[str, str], Played],
    chosen: Mapping[str, Sequence[str]],
) -> list[Row]:
    """Return the rows of all settings that were played on a kind of question."""
    taken = [key for key in played if key[1] in chosen.get(key[0], ())]
    rivals = {key: played[key] for key in taken if key[0] not in (*OWN, *NOT_PLAYED)}
    rows = []
    for key, own in played.items():
        row = Row(
            model, kind, k, *key, key in taken, len(own.same), own.same.size, share(own.same),
            share(own.right), float(own.exact.mean()), mean(own.costs),
        )  # fmt: skip
        if kind == "reaches" and key[0] == "screening":
            rival = cheapest(rivals)
            ratio, more_lost, less_right = compare(own, played[rival])
            row = replace(
                row,
                rival=" ".join(rival).strip(),
                ratio=ratio,
                more_lost=more_lost,
                less_right=less_right,
            )
        rows.append(row)
    return rows


def cheapest(played: Mapping[tuple[str, str], Played]) -> tuple[str, str]:
    """Return the cheapest setting whose agreement is at least 98 % at the lower end.

    If none is, that which agrees most.
    """
    good = [key for key, value in played.items() if share(value.same)[1] >= AGREEMENT]
    if good:
        return min(good, key=lambda key: played[key].costs.mean())
    return max(played, key=lambda key: played[key].same.mean())


def compare(own: Played, rival: Played) -> tuple[Estimate, Estimate, Estimate]:
    """Return the ratio of costs, the decisions lost in addition, and the accuracy lost.

    The first is bootstrapped over images; the others are of the draws of seed 0.
    """
    a, b = own.costs.mean(axis=1), rival.costs.mean(axis=1)
    rows = np.random.default_rng(0).integers(0, len(a), (RESAMPLES, len(a)))
    low, high = np.quantile(a[rows].mean(axis=1) / b[rows].mean(axis=1), [0.025, 0.975])
    ratio = float(a.mean() / b.mean()), float(low), float(high)
    return ratio, loss(own.same[:, 0], rival.same[:, 0]), loss(own.right[:, 0], rival.right[:, 0])


def loss(own: NDArray[np.bool_], rival: NDArray[np.bool_]) -> Estimate:
    """Return the share of images for which only the rival's is true, less the reverse (Tango)."""
    lost, kept = (rival & ~own).sum(), (own & ~rival).sum()
    low, high = difference_interval(np.array(lost), np.array(kept), np.array(len(own)))
    return float(lost - kept) / len(own), float(low), float(high)


def share(right: NDArray[np.bool_]) -> Estimate:
    """Return the share of true values [images, repeats], with its interval over images."""
    whole = spread(right.T[:, None].astype(np.float64))
    assert whole.interval is not None
    return whole.value, *whole.interval


def mean(values: Floats) -> Estimate:
    """Return the mean of values [images, repeats], with its interval over images."""
    own = values.mean(axis=1)
    reach = 1.96 * own.std(ddof=1) / np.sqrt(len(own))
    return float(own.mean()), float(own.mean() - reach), float(own.mean() + reach)


def passes(row: Row, lost: Estimate | None) -> bool:
    """Return whether screening wins by this row, by the rule that was fixed beforehand."""
    assert row.ratio is not None
    assert lost is not None
    return row.ratio[2] <= COST_RATIO and lost[2] <= MORE_LOST


def shown(row: Row) -> bool:
    """Return whether a row is in the table: those of chosen settings, of sweeps and of recall."""
    whole = row.kind == "all" and row.strategy.startswith("full")
    played = row.chosen and row.strategy not in ("full", "nearest picture")
    return row.kind == "recall" or whole or (played and row.kind != "reaches")


def table(rows: Sequence[Row]) -> str:
    """Return the rows of chosen settings in Markdown."""
    lines = [
        "| model | questions | K | strategy | setting | n | evaluations per class | per image"
        " | agreement with the sweep, % | accuracy, % | exact, % |",
        "|---|---|--:|---|---|--:|--:|--:|---|---|--:|",
    ]
    for row in rows:
        if not shown(row):
            continue
        cells = (
            row.model, row.kind, str(row.classes), row.strategy, row.setting,
            f"{row.images} × {row.decisions // row.images}", f"{row.cost[0] / row.classes:.2f}",
            f"{row.cost[0]:,.1f} ({row.cost[1]:,.1f}–{row.cost[2]:,.1f})", percent(row.agreement),
            percent(row.accuracy), f"{100 * row.exact:.1f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> str:
    """Return what the rule says of screening, for every reach that was tried and the chosen one."""
    lines = [
        "| model | screening | against | cost ratio (95 %) | added disagreements, points (Tango) |"
        " passes | accuracy lost, points (Tango) | passes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.kind == "reaches" and row.ratio:
            star = "**chosen:** " if row.chosen else ""
            cells = [
                row.model, f"{star}{row.setting}", row.rival,
                f"{row.ratio[0]:.3f} ({row.ratio[1]:.3f}–{row.ratio[2]:.3f})",
            ]  # fmt: skip
            for lost in (row.more_lost, row.less_right):
                assert lost is not None
                value, low, high = (100 * part for part in lost)
                cells += [f"{value:+.2f} ({low:+.2f} to {high:+.2f})"]
                cells += ["yes" if passes(row, lost) else "no"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(value: Estimate) -> str:
    """Return a share and its interval in percent."""
    return f"{100 * value[0]:.1f} ({100 * value[1]:.1f}–{100 * value[2]:.1f})"


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw evaluations per class against K, a column per model, and the agreement beneath."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row.model for row in rows))
    figure = Figure((4.2 * len(models) + 1.5, 6.4), layout="constrained")
    panels = figure.subplots(
        2, len(models), squeeze=False, sharex=True, sharey="row", height_ratios=(2, 1)
    )
    for (above, below), model in zip(panels.T, models, strict=True):
        above.set_prop_cycle(color=colormaps["tab20"]([*range(0, 20, 2), *range(1, 20, 2)]))
        own = [row for row in rows if row.model == model and row.kind in ("half B", "all")]
        for strategy in dict.fromkeys(row.strategy for row in own if shown(row)):
            points = [row for row in own if row.strategy == strategy]
            k = [row.classes for row in points]
            agreement = [100 * row.agreement[0] for row in points]
            if strategy == "full":
                continue
            if strategy.startswith("full,"):
                below.axhline(agreement[0], color="black", linestyle="--", linewidth=0.8)
                continue
            cost = [row.cost[0] / row.classes for row in points]
            style = "k:" if strategy == "clairvoyant" else ".-"
            (line,) = above.plot(k, cost, style, label=strategy)
            if strategy != "clairvoyant":
                below.plot(k, agreement, style, color=line.get_color())
        above.set(title=model, xscale="log", yscale="log")
        below.set(xlabel="classes", ylim=(80, 100.5))
    panels[0, 0].set_ylabel("evaluations per class")
    panels[1, 0].set_ylabel("agreement with the sweep, %\n(dashed: of two seeds of the sweep)")
    panels[0, -1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file)


def write(rows: Sequence[Row], folder: Path) -> None:
    """Print the table and the decision, and write them, the rows and the figure to a folder."""
    text = f"{table(rows)}\n\n{verdict(rows)}\n"
    print(text)
    (folder / "table.md").write_text(text)
    (folder / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=0) + "\n")
    draw(rows, folder / "growth.svg")
