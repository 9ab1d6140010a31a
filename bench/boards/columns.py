"""Leaderboard tables: one column per setting in which rows differ, above them what all share."""

from __future__ import annotations

from collections.abc import Sequence

from bench.boards.formats import assignments, cost_text, label_texts, value_text
from bench.boards.rows import REPORTED, LeaderboardRow
from bench.boards.text import TextTable
from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.discovery.loading import metric_specs, non_default_params
from bench.stats.differences import Settings

# `cost` is evaluation equivalents per image, `n` the number of images and `s` seconds per image.
RIGHT_ALIGNED = ("rank", "n", "cost", "s")
NOTES = "notes"  # column of the labels of a row, such as its training data
NO_VALUE = "–"
PROMPT_SETTINGS = ("prompt", "template")
DENOISER_SETTINGS = ("draws", "loss", "space", "plan", *PROMPT_SETTINGS)


def tabulate(board: Sequence[LeaderboardRow], title: str = "") -> TextTable:
    """Return a board, which has at least one row, as a table.

    Settings that all rows share are stated once, in the line above the table. Reported results
    state few settings, so the other rows alone decide what is shared, if there are any; a reported
    result keeps a setting that differs.
    """
    sources: list[str] = []
    metrics = metric_columns(board)
    lines = [_cells_by_column(row, metrics) for row in board]
    own = own_row_indices(board)
    shared, differing = _split_settings(board, [row_settings(row) for row in board])
    reported = [index for index in range(len(board)) if index not in own]
    varied = dict.fromkeys(name for index in [*own, *reported] for name in differing[index])
    for line, row, settings in zip(lines, board, differing, strict=True):
        for name in varied:
            line[name] = value_text(settings.get(name))
        line[NOTES] = ", ".join(label_texts(row, sources))
    constant = [n for n in ("backbone", "n", NOTES) if len({lines[i][n] for i in own}) == 1]
    if reported:  # a reported result has its own backbone and source
        constant = []
    first = lines[own[0]]
    above = [f"{first[name]} images" if name == "n" else first[name] for name in constant]
    above += shared
    head = [name for name in lines[0] if name not in constant]
    right = frozenset({*RIGHT_ALIGNED, *(metric.words for metric in metrics)})
    texts = [[line[name] for name in head] for line in lines]
    return TextTable(title, head, texts, right, above=" · ".join(above), sources=sources)


def metric_columns(rows: Sequence[LeaderboardRow]) -> list[MetricSpec]:
    """Return the metrics that get a column because a row has them; accuracy always has one."""
    return [m for m in metric_specs().values() if any(row.shows(m) for row in rows)]


def row_settings(row: LeaderboardRow) -> Settings:
    """Return the settings that affect the results of a row, except the strategy's parameters.

    `draws` is included, although it is one of them. Parameters of the backbone are left out if they
    have their default.
    """
    settings = {
        "draws": None if row.classifier else row.params.get("draws"),
        "template": f"“{row.template}”" if row.template else None,
        "prompt": f"“{row.prompt}”" if row.prompt and not row.template else None,
        "seed": row.seed,
        "loss": row.loss,
        "space": row.space,
        "plan": row.draw_plan,
        "dtype": row.dtype,
        **non_default_params("backbones", row.backbone, row.parameters),
    }
    if settings["draws"] == 1:
        settings.pop("reduction", None)  # every reduction of one draw gives the same number
    return {name: value for name, value in settings.items() if value is not None}


def describe_settings(board: Sequence[LeaderboardRow]) -> tuple[str, list[str]]:
    """Return the shared settings as one line, and the remaining settings of each row as a text.

    They include the strategies' parameters. What is shared is decided as in `tabulate`.
    """
    settings = [{**_chosen_params(row), **row_settings(row)} for row in board]
    shared, differing = _split_settings(board, settings)
    return " · ".join(shared), [assignments(settings) for settings in differing]


def own_row_indices(board: Sequence[LeaderboardRow]) -> list[int]:
    """Return the indices of the rows that are not reported results; of all rows if none is."""
    own = [index for index, row in enumerate(board) if row.kind != REPORTED]
    return own or list(range(len(board)))


def _split_settings(
    board: Sequence[LeaderboardRow], settings: Sequence[Settings]
) -> tuple[list[str], list[Settings]]:
    """Return the settings that the own rows share, as texts, and the other settings of each row.

    One of `DENOISER_SETTINGS` may be missing in rows of classifiers, which have no loss either.
    """
    kinds = ("", "rows with draws: ", "rows with prompts: ")
    shared: dict[str, dict[str, object]] = {kind: {} for kind in kinds}
    own = [settings[index] for index in own_row_indices(board)]
    # The row with the most settings comes first, so that names keep the order of `row_settings`.
    longest_first = sorted(own, key=len, reverse=True)
    common: Settings = {}
    for name in dict.fromkeys(name for options in longest_first for name in options):
        values = [options[name] for options in own if name in options]
        without = [options for options in own if name not in options]
        may_lack = name in DENOISER_SETTINGS and not any("loss" in options for options in without)
        if all(value == values[0] for value in values) and (may_lack or not without):
            rows = "rows with prompts: " if name in PROMPT_SETTINGS else "rows with draws: "
            shared[rows if without else ""][name] = common[name] = values[0]
    differing = [
        {k: v for k, v in options.items() if k not in common or v != common[k]}
        for options in settings
    ]
    return [rows + assignments(options) for rows, options in shared.items() if options], differing


def _cells_by_column(row: LeaderboardRow, metrics: Sequence[MetricSpec]) -> dict[str, str]:
    interval, seconds = row.shown_ci95, row.seconds_per_image
    return {
        "rank": NO_VALUE if row.rank is None else str(row.rank),
        "accuracy (95 %)": f"{row.accuracy:.4f}"
        + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else ""),
        **{
            metric.words: NO_VALUE if (value := row.metric(metric.name)) is None else f"{value:.4f}"
            for metric in metrics
        },
        "cost": cost_text(row),
        "s": NO_VALUE if seconds is None else f"{seconds:.3g}",
        "n": NO_VALUE if row.n_samples is None else f"{row.n_samples:,}",
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(_chosen_params(row))}".strip(),
    }


def _chosen_params(row: LeaderboardRow) -> Parameters:
    """Return the strategy's parameters that are not at their default, except `draws`."""
    return {
        k: v
        for k, v in non_default_params("strategies", row.strategy, row.params).items()
        if k != "draws"
    }
