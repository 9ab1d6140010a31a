"""Leaderboard tables: one column per setting in which rows differ, above them what all share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.boards.formats import assignments, chosen, cost_text, label_texts, value_text
from bench.boards.rows import REPORTED, LeaderboardRow
from bench.boards.text import TextTable
from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.discovery.loading import metric_specs
from bench.stats.differences import Settings

# Columns of numbers. `cost` is evaluation equivalents per image, and `s` seconds per image.
RIGHT = ("rank", "n", "cost", "s")
NO_VALUE = "–"
PROMPT_SETTINGS = ("prompt", "template")
DENOISER_SETTINGS = ("draws", "loss", "space", "plan", *PROMPT_SETTINGS)


def tabulate(board: Sequence[LeaderboardRow], title: str = "") -> TextTable:
    """Return a board as a table. What all its rows share is stated once, in the line above it.

    Reported results state few settings, so they are ignored when shared settings are sought, unless
    there are no other rows.
    """
    sources: list[str] = []
    columns = metric_columns(board)
    lines = [_line(row, columns) for row in board]
    own = own_rows(board)
    shared, differing = _split(board, [row_settings(row) for row in board])
    varied = dict.fromkeys(name for index in own for name in differing[index])
    for line, row, options in zip(lines, board, differing, strict=True):
        for name in varied:
            line[name] = value_text(options.get(name))
        line["what"] = ", ".join(label_texts(row, sources))
    facts = [n for n in ("backbone", "n", "what") if len({lines[i][n] for i in own}) == 1]
    if len(own) < len(board):  # a reported result has its own backbone and source
        facts = []
    first = lines[own[0]]
    above = [f"{first[name]} images" if name == "n" else first[name] for name in facts]
    above += shared
    head = [name for name in lines[0] if name not in facts]
    right = frozenset({*RIGHT, *(metric.words for metric in columns)})
    cells = [[line[name] for name in head] for line in lines]
    return TextTable(title, head, cells, right, above=" · ".join(above), sources=sources)


def metric_columns(rows: Sequence[LeaderboardRow]) -> list[MetricSpec]:
    """Return the metrics that get a column because a row has them; accuracy always has one."""
    return [m for m in metric_specs().values() if any(row.shows(m) for row in rows)]


def row_settings(row: LeaderboardRow) -> Settings:
    """Return the settings of a row that affect its figures, without its strategy and defaults."""
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
        options.pop("reduction", None)  # every reduction of one draw gives the same number
    return {name: value for name, value in options.items() if value is not None}


def in_words(board: Sequence[LeaderboardRow]) -> tuple[str, list[str]]:
    """Return the shared settings in one line, and the remaining settings of each row.

    Reported rows are ignored when shared settings are sought, as in `tabulate`.
    """
    settings = [{**_params(row), **row_settings(row)} for row in board]
    shared, differing = _split(board, settings)
    return " · ".join(shared), [assignments(options) for options in differing]


def own_rows(board: Sequence[LeaderboardRow]) -> list[int]:
    """Return the indices of the rows that are not reported results; of all rows if none is."""
    own = [index for index, row in enumerate(board) if row.kind != REPORTED]
    return own or list(range(len(board)))


def _split(
    board: Sequence[LeaderboardRow], settings: Sequence[Settings]
) -> tuple[list[str], list[Settings]]:
    """Return the settings that rows share, as texts, and the remaining settings of each row.

    A classifier has no loss, no draw plan and perhaps no prompt. A setting of this kind still
    counts as shared if all rows that have it agree.
    """
    shared: dict[str, dict[str, Any]] = {"": {}, "rows with draws: ": {}, "rows with prompts: ": {}}
    own = [settings[index] for index in own_rows(board)]
    longest_first = sorted(own, key=len, reverse=True)  # makes the order of the names deterministic
    for name in dict.fromkeys(name for options in longest_first for name in options):
        values = [options[name] for options in own if name in options]
        without = [options for options in own if name not in options]
        allowed = name in DENOISER_SETTINGS and not any("loss" in options for options in without)
        if all(value == values[0] for value in values) and (allowed or not without):
            rows = "rows with prompts: " if name in PROMPT_SETTINGS else "rows with draws: "
            shared[rows if without else ""][name] = values[0]
    names = {name for options in shared.values() for name in options}
    return (
        [rows + assignments(options) for rows, options in shared.items() if options],
        [{k: v for k, v in options.items() if k not in names} for options in settings],
    )


def _line(row: LeaderboardRow, columns: Sequence[MetricSpec]) -> dict[str, str]:
    """Return the cells of a row by column; settings are added by `tabulate`."""
    interval, seconds = row.shown_ci95, row.seconds_per_image
    return {
        "rank": NO_VALUE if row.rank is None else str(row.rank),
        "accuracy (95 %)": f"{row.accuracy:.4f}"
        + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else ""),
        **{
            metric.words: NO_VALUE if (value := row.metric(metric.name)) is None else f"{value:.4f}"
            for metric in columns
        },
        "cost": cost_text(row),
        "s": NO_VALUE if seconds is None else f"{seconds:.3g}",
        "n": NO_VALUE if row.n_samples is None else f"{row.n_samples:,}",
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(_params(row))}".strip(),
    }


def _params(row: LeaderboardRow) -> Parameters:
    """Return the strategy's parameters that are not at their default, except `draws`."""
    return {k: v for k, v in chosen("strategies", row.strategy, row.params).items() if k != "draws"}
