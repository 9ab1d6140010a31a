"""Leaderboard tables: one column per setting in which rows differ, above them what all share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import provenance
from bench.discovery.loading import metric_specs, non_default_params
from bench.reports.formats import (
    assignments,
    boards,
    cost_text,
    metric_head,
    percent_text,
    row_labels,
    template_text,
    value_text,
)
from bench.reports.leaderboard.ranking import RANKED
from bench.reports.leaderboard.rows import REPORTED, LeaderboardRow
from bench.reports.text import TextTable
from bench.stats.comparison import Settings
from bench.stats.many import rank_text

# `cost` is evaluation equivalents per image, `n` the number of images and `s` seconds per image.
RIGHT_ALIGNED = ("rank", "n", "cost", "s")
ACCURACY = "accuracy, %"
MARKS = "marks"  # column of what distinguishes a row, such as its training data
NO_VALUE = "–"
PROMPT_SETTINGS = ("prompt", "template")
DENOISER_SETTINGS = ("draws", "loss", "space", "plan", *PROMPT_SETTINGS)
DETAILS = frozenset({"timed", "in-memory", "audited"})  # kinds of labels of wide tables alone
IN_SETTINGS = frozenset({"draws"})  # kinds of labels that tables show as a setting


def board_tables(
    rows: Sequence[LeaderboardRow], name: Callable[[LeaderboardRow], str] | None = None
) -> list[TextTable]:
    """Return a wide table per board; below the last one, ranks are explained. See `tabulate`."""
    tables = [tabulate(board, title, name=name) for title, board in boards(rows)]
    if tables:
        tables[-1].below.append(RANKED)
    return tables


def tabulate(
    board: Sequence[LeaderboardRow],
    title: str = "",
    narrow: bool = False,
    name: Callable[[LeaderboardRow], str] | None = None,
) -> TextTable:
    """Return a board, which has at least one row, as a table.

    Settings that all rows share are stated once, in the line above the table. Reported results
    state few settings, so the other rows alone decide what is shared, if there are any; a reported
    result keeps a setting that differs. A `narrow` table has few columns, and one line per row.
    `name` returns the name of a row's run, for a last column.
    """
    sources: list[str] = []
    common, marks = board_labels(board, sources, DETAILS if narrow else frozenset())
    metrics = [m for m in metric_columns(board) if not (narrow and m.column)]
    own = own_row_indices(board)
    images = {board[index].n_samples for index in own}
    if narrow or (len(images) == 1 and len(own) == len(board)):
        common += [f"{n:,} images" for n in images if n and len(images) == 1]
    if narrow:
        settings = [{**_chosen_params(row), **row_settings(row)} for row in board]
    else:
        settings = [row_settings(row) for row in board]
    shared, differing = _split_settings(board, settings)
    reported = [index for index in range(len(board)) if index not in own]
    varied = dict.fromkeys(key for index in [*own, *reported] for key in differing[index])
    lines = []
    for row, mark, options in zip(board, marks, differing, strict=True):
        seconds = row.seconds_per_image
        strategy = options if narrow else _chosen_params(row)
        line = {
            "rank": rank_text(row.rank),
            "model": row.backbone,
            "strategy": f"{row.strategy} {assignments(strategy)}".strip(),
            ACCURACY: percent_text(row.accuracy, row.shown_ci95),
            **{
                metric_head(metric): NO_VALUE if value is None else metric.shown(value)
                for metric in metrics
                for value in [row.metric(metric.name)]
            },
            "cost": cost_text(row),
        }
        if not narrow:
            line["s"] = NO_VALUE if seconds is None else f"{seconds:.3g}"
            line["n"] = NO_VALUE if row.n_samples is None else f"{row.n_samples:,}"
            line |= {key: value_text(options.get(key)) for key in varied}
        line[MARKS] = ", ".join(mark)
        if name is not None:
            line["run"] = name(row)
        lines.append(line)
    left_out = {MARKS} if not any(marks) else set()
    if f"{board[0].n_samples or 0:,} images" in common:
        left_out.add("n")
    head = [key for key in lines[0] if key not in left_out]
    return TextTable(
        title,
        head,
        [[line[key] for key in head] for line in lines],
        frozenset({*RIGHT_ALIGNED, *map(metric_head, metrics)}),
        above=" · ".join([*common, *shared]),
        sources=sources,
        cut=frozenset({"model", "strategy", MARKS} if narrow else ()),
    )


def board_labels(
    board: Sequence[LeaderboardRow], sources: list[str], left_out: frozenset[str] = frozenset()
) -> tuple[list[str], list[list[str]]]:
    """Return the labels that the own rows of a board share, and the other labels of each row.

    The training data of most rows counts as shared. On a board with published runs, others are
    marked. The label of a reported result has the number of its source; a new source is appended to
    `sources` in place. Labels of the kinds `left_out` are omitted.
    """
    labels = [row_labels(row) for row in board]
    own = own_row_indices(board)
    if any(row.published for row in board):
        for row, texts in zip(board, labels, strict=True):
            if not row.published and row.kind != REPORTED:
                texts["yours"] = "yours"
    for row, texts in zip(board, labels, strict=True):
        if row.kind == REPORTED:
            if row.source not in sources:
                sources.append(row.source)
            texts[REPORTED] += f" ({sources.index(row.source) + 1})"
    training = Counter(provenance(board[index].trained_on) for index in own)
    usual, count = training.most_common(1)[0]
    labels = [{k: v for k, v in texts.items() if v != usual} for texts in labels]
    shared = [
        (kind, text)
        for kind, text in labels[own[0]].items()
        if len(board) > 1 and all(labels[index].get(kind) == text for index in own)
    ]
    hidden = {*IN_SETTINGS, *left_out}
    common = [usual + " unless marked" * (count < len(own))]
    common += [text for kind, text in shared if kind not in hidden]
    marks = [
        [text for kind, text in texts.items() if kind not in hidden and (kind, text) not in shared]
        for texts in labels
    ]
    return common, marks


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
        "template": template_text(row.template),
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


def _chosen_params(row: LeaderboardRow) -> Parameters:
    """Return the strategy's parameters that are not at their default, except `draws`."""
    params = non_default_params("strategies", row.strategy, row.params)
    return {name: value for name, value in params.items() if name != "draws"}
