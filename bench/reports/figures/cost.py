"""The figure of cost: results against what they cost, with intervals and Pareto fronts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.contracts.strategy import Floats
from bench.machine.libraries import Axes, Bbox, Figure
from bench.recordings.replay import SweepRow
from bench.reports.facts import Interval, percent_text
from bench.reports.figures.plots import Point
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.leaderboard.board import CURRENCIES, Board, BoardLine, comparable
from bench.reports.leaderboard.rows import REPLAYED, REPORTED, SUBSET
from bench.reports.rows import Currency
from bench.stats.metrics.summarise import INCOMPLETE

MAX_SHARED_KEYS = 5  # keys in one label, for points that lie together
NEAR = (0.1, 0.08)  # distances of points that share a label, as shares of the axes
GAP = 7  # typographic points between a marker and its label
KEY_STYLE: dict[str, Any] = {"textcoords": "offset points", "fontweight": "bold"}


@dataclass(frozen=True)
class Panel:
    """One part of the figure: a value against cost."""

    value: str  # the share that the vertical axis shows
    points: list[Point]
    fronts: list[list[Point]] = field(default_factory=list)  # Pareto fronts, drawn as steps
    title: str = ""
    currency: Currency = "evaluations"  # what costs are counted in


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Return the points that are not dominated in cost and value, cheapest first."""
    front: list[Point] = []
    priced = [(point.cost, point) for point in points if point.cost is not None]
    for _, point in sorted(priced, key=lambda pair: (pair[0], -pair[1].value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


def board_point(line: BoardLine) -> Point:
    """Return the accuracy of a board's row; hollow if it is of a part of the split."""
    row = line.row
    return Point(
        f"{line.key}  {row.backbone} · {row.strategy}",
        row.accuracy,
        row.shown_ci95,
        percent_text(row.accuracy, row.shown_ci95),
        colour="right" if row.trained_on is None else "wrong",
        hollow=row.kind in (SUBSET, INCOMPLETE),
        shape={REPLAYED: "^", REPORTED: "s"}.get(row.kind, "o"),
        key=line.key,
    )


def board_panel(board: Board, named: bool = False) -> Panel | None:
    """Return the panel of a board, or None if there is nothing to compare.

    Hollow points cover a part of the split. `named` points have their model in a legend.
    """

    def point(line: BoardLine) -> Point:
        made = board_point(line)
        muted = "muted" if line.row.kind == REPORTED else made.colour
        cost = line.row.spent(board.currency).value
        return replace(made, name=made.name if named else "", colour=muted, cost=cost)

    points = [point(line) for line in board.lines]
    if len(points) < (1 if named else 2) or all(point.cost is None for point in points):
        return None
    fronts = [pareto_front(map(point, lines)) for lines in comparable(board.lines)]
    fronts = [front for front in fronts if len(front) > 1]
    return Panel("accuracy", points, fronts, board.title if named else "", board.currency)


def sweep_panels(rows: Sequence[SweepRow]) -> list[Panel]:
    """Return the agreement with the full sweep and the accuracy of replays, one name per strategy.

    Crosses are named runs, at their cost in evaluations of their own network.
    """
    names = list(dict.fromkeys(row.summary.strategy.name for row in rows if not row.point))

    def point(row: SweepRow, value: float, interval: Interval) -> Point:
        if row.point:
            name = f"{row.summary.backbone.name} (its own network)"
            return Point(name, value, interval, colour="ink", shape="X", cost=row.cost)
        name = row.summary.strategy.name
        return Point(name, value, interval, colour=f"C{names.index(name)}", cost=row.cost)

    agreement = [point(row, row.agreement, row.agreement_ci95) for row in rows]
    metrics = [row.summary.metrics for row in rows]
    accuracy = [point(r, m.accuracy, m.accuracy_ci95) for r, m in zip(rows, metrics, strict=True)]
    replays = [p for row, p in zip(rows, agreement, strict=True) if not row.point]
    first = next(row.summary for row in rows if not row.point)
    title = f"{first.replayed_from}, {first.dataset.n_samples} images"
    return [
        Panel("agreement with the full sweep", agreement, [pareto_front(replays)], title),
        Panel("accuracy", accuracy),
    ]


def draw_cost(panels: Sequence[Panel]) -> Drawing:
    """Draw values against cost on a logarithmic axis, one panel beside the other."""
    legend = any(point.name for panel in panels for point in panel.points)

    def plot(figure: Figure, colours: Palette) -> None:
        columns = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(columns, panels, strict=True):
            _draw_panel(axes, panel, colours)
            if legend:
                names = axes.get_legend_handles_labels()
                axes.legend(*names, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        for axes, panel in zip(columns, panels, strict=True):
            if any(point.key for point in panel.points):
                _draw_keys(figure, axes, panel.points, colours)  # last, when the limits are final

    size = (6.5 * len(panels), 5.0) if legend else (4.6, 3.3)
    label = f"{panels[0].value} against cost; the values are in the table."
    return Drawing(plot, size, label)


def _draw_panel(axes: Axes, panel: Panel, colours: Palette) -> None:
    for front in panel.fronts:
        steps = zip(*((point.cost or 0, point.value) for point in front), strict=True)
        colour = getattr(colours, front[0].colour, colours.muted)
        axes.step(*steps, where="post", color=colour, linewidth=1)
    alike: dict[tuple[str, str, str, bool], list[Point]] = {}
    for point in panel.points:
        if point.cost is None:
            axes.axhline(point.value, color=colours.muted, linestyle=":", linewidth=1.2)
            place, scale = (1, point.value), ("axes fraction", "data")
            style = {**KEY_STYLE, "va": "center", "color": colours.muted}
            axes.annotate(point.key, place, (4, 0), scale, **style)
        else:
            look = (point.shape, getattr(colours, point.colour, point.colour))
            alike.setdefault((*look, point.name, point.hollow), []).append(point)
    for (shape, colour, name, hollow), members in alike.items():
        members.sort(key=lambda point: point.cost or 0)
        values = np.array([point.value for point in members])
        low, high = np.array([point.ends for point in members]).T
        axes.errorbar(
            [point.cost or 0 for point in members],
            values,
            np.clip([values - low, high - values], 0, None),
            fmt=f"{shape}-" if name else shape,
            color=colour,
            markerfacecolor="none" if hollow else colour,
            markersize=6,
            linewidth=0.8,
            elinewidth=1,
            capsize=2.5,
            label=name or None,
        )
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    axes.set_title(panel.title, fontsize=10.5, loc="left")
    axes.set_xlabel(CURRENCIES[panel.currency])
    axes.set_ylabel(f"{panel.value}, %")
    _set_plain_ticks(axes)


def _set_plain_ticks(axes: Axes) -> None:
    """Label costs as 50 and 1,000 instead of powers of ten, and shares in per cent."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    few = high / low > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}"))


def _draw_keys(figure: Figure, axes: Axes, points: Iterable[Point], colours: Palette) -> None:
    """Label the markers with the points' keys; markers that lie together share a label."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D, Bbox

    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    cheapest_first = sorted((p for p in points if p.cost is not None), key=lambda p: p.cost or 0)
    pixels = figure.dpi / 72  # per typographic point
    show = axes.transData.transform
    taken = []  # boxes of error bars and labels, in typographic points
    for point in cheapest_first:
        ends = [show((point.cost or 0, end)) / pixels for end in point.ends]
        taken.append(Bbox(ends).padded(3))
    whole = axes.bbox.transformed(Affine2D().scale(1 / pixels))
    for members in _near_together(axes, cheapest_first):
        last = members[-1]
        keys = sorted((point.key for point in members), key=lambda key: (len(key), key))
        more = len(keys) - MAX_SHARED_KEYS
        text = " ".join(keys[:MAX_SHARED_KEYS]) + (f" +{more}" if more > 0 else "")
        marker = (last.cost or 0, last.value)
        x, y = show(marker) / pixels
        size = TextPath((0, 0), text, prop=FontProperties(size=10.5, weight="bold")).get_extents()
        box = find_free_place(Bbox.from_bounds(x, y, size.width, size.height), taken, whole)
        taken.append(box)
        axes.annotate(text, marker, (box.x0 - x, box.y0 - y), **KEY_STYLE, color=colours.ink)


def _near_together(axes: Axes, points: Iterable[Point]) -> list[list[Point]]:
    """Return groups of points, each of those that lie near the first one of the group."""
    to_axes = axes.transScale + axes.transLimits  # from (0, 0), lower left, to (1, 1)
    groups: list[tuple[Floats, list[Point]]] = []
    for point in points:
        place = to_axes.transform((point.cost or 0, point.value))
        for place_of_first, members in groups:
            if (np.abs(place - place_of_first) < NEAR).all():
                members.append(point)
                break
        else:
            groups.append((place, [point]))
    return [members for _, members in groups]


def find_free_place(text: Bbox, taken: Sequence[Bbox], whole: Bbox) -> Bbox:
    """Return the box for a label near a marker that overlaps as few `taken` boxes as possible.

    `text` has the marker as its lower left corner and the size of the label. All are in points.
    """
    from matplotlib.transforms import Bbox

    (x, y), width, height = text.p0, text.width, text.height
    lefts, middles = (x + GAP, x - GAP - width), (y + 5, y - 5 - height)
    reach = [box for box in taken if box.x0 < x < box.x1] or [text]  # bars through the marker
    above, below = max(box.y1 for box in reach) + 1, min(box.y0 for box in reach) - 1 - height
    corners = [(left, low) for low in middles for left in lefts]
    corners += [(left, low) for low in (above, below) for left in (x - width / 2, *lefts)]
    boxes = [Bbox.from_bounds(left, low, width, height) for left, low in corners]

    def hits(box: Bbox) -> int:
        inside = whole.contains(*box.p0) and whole.contains(*box.p1)
        return box.count_overlaps(taken) + (not inside)

    return min(boxes, key=hits)
