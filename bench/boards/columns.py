"""A board as a table: the columns in which its rows differ, and once above what they share."""

from __future__ import annotations

from collections.abc import Sequence

from bench.boards.formats import assignments, chosen, cost_text, notes, value_text
from bench.boards.rows import REPORTED, LeaderboardRow
from bench.boards.text import TextTable
from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.discovery.loading import metric_specs
from bench.stats.differences import Settings

# Columns of numbers; cost and s are evaluation equivalents and seconds per image.
RIGHT = ("rank", "n", "cost", "s")
NO_VALUE = "–"
OF_PROMPTS = ("prompt", "template")
OF_DENOISERS = ("draws", "loss", "space", "plan", *OF_PROMPTS)


def tabulate(board: Sequence[LeaderboardRow], title: str = "") -> TextTable:
    """Return a board as a table; what all rows but reported ones share stands above."""
    sources: list[str] = []
    columns = metric_columns(board)
    lines = [_line(row, columns) for row in board]
    own = own_places(board)
    common, differs = _factored([row_settings(row) for row in board], own)
    named = dict.fromkeys(name for place in own for name in differs[place])
    for line, row, options in zip(lines, board, differs, strict=True):
        for name in named:
            line[name] = value_text(options.get(name))
        line["what"] = ", ".join(notes(row, sources))
    facts = [n for n in ("backbone", "n", "what") if len({lines[p][n] for p in own}) == 1]
    if len(own) < len(board):  # a reported result has a backbone and a source of its own
        facts = []
    first = lines[own[0]]
    above = [f"{first[name]} images" if name == "n" else first[name] for name in facts]
    above += common
    head = [name for name in lines[0] if name not in facts]
    right = frozenset({*RIGHT, *(metric.words for metric in columns)})
    cells = [[line[name] for name in head] for line in lines]
    return TextTable(title, head, cells, right, above=" · ".join(above), sources=sources)


def metric_columns(rows: Sequence[LeaderboardRow]) -> list[MetricSpec]:
    """Return the metrics that have a column on a board of these rows, the accuracy aside."""
    return [m for m in metric_specs().values() if any(row.shows(m) for row in rows)]


def row_settings(row: LeaderboardRow) -> Settings:
    """Return what changes a row's numbers beside its strategy and is not at its default."""
    options = {
        "draws": None if row.classifier else row.params.get("draws"),
        "template": f"“{row.template}”" if row.template else None,
        "prompt": f"“{row.prompt}”" if row.prompt and not row.template else None,
        "seed": row.seed,
        "loss": row.loss,
        "space": row.space,
        "plan": row.draw_plan,
        "dtype": row.dtype,
        **chosen("backbones", row.backbone, row.parameters),
    }
    if options["draws"] == 1:
        options.pop("reduction", None)  # of one draw, all are the same
    return {name: value for name, value in options.items() if value is not None}


def own_places(board: Sequence[LeaderboardRow]) -> list[int]:
    """Return the places of the rows that are not reported; of all, where there are no others."""
    own = [place for place, row in enumerate(board) if row.kind != REPORTED]
    return own or list(range(len(board)))


def in_words(board: Sequence[LeaderboardRow]) -> tuple[str, list[str]]:
    """Return what all rows but reported ones share, and of each row what differs."""
    settings = [{**_params(row), **row_settings(row)} for row in board]
    above, differs = _factored(settings, own_places(board))
    return " · ".join(above), [assignments(row) for row in differs]


def _factored(settings: Sequence[Settings], own: Sequence[int]) -> tuple[list[str], list[Settings]]:
    """Return what the rows in these places share, in words, and of every row the rest.

    A classifier has no loss, no plan and perhaps no prompt; it does not keep the others from
    sharing theirs.
    """
    shared: dict[str, Settings] = {"": {}, "rows with draws: ": {}, "rows with prompts: ": {}}
    rows = sorted((settings[place] for place in own), key=len, reverse=True)
    for name in dict.fromkeys(name for row in rows for name in row):  # of the fullest row first
        values = [row[name] for row in rows if name in row]
        lacking = [row for row in rows if name not in row]
        allowed = name in OF_DENOISERS and not any("loss" in row for row in lacking)
        if all(value == values[0] for value in values) and (allowed or not lacking):
            which = "rows with prompts: " if name in OF_PROMPTS else "rows with draws: "
            shared[which if lacking else ""][name] = values[0]
    above = {name for part in shared.values() for name in part}
    words = [which + assignments(part) for which, part in shared.items() if part]
    return words, [{k: v for k, v in row.items() if k not in above} for row in settings]


def _line(row: LeaderboardRow, columns: Sequence[MetricSpec]) -> dict[str, str]:
    interval, seconds = row.shown_ci95, row.seconds_per_image
    return {
        "rank": NO_VALUE if row.rank is None else str(row.rank),
        "accuracy (95 %)": f"{row.accuracy:.4f}"
        + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else ""),
        **{
            metric.words: NO_VALUE if (value := row.figure(metric.name)) is None else f"{value:.4f}"
            for metric in columns
        },
        "cost": cost_text(row),
        "s": NO_VALUE if seconds is None else f"{seconds:.3g}",
        "n": NO_VALUE if row.n_samples is None else f"{row.n_samples:,}",
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(_params(row))}".strip(),
    }


def _params(row: LeaderboardRow) -> Parameters:
    """Return the strategy's parameters that are not at their default, but for the draws."""
    return {k: v for k, v in chosen("strategies", row.strategy, row.params).items() if k != "draws"}
