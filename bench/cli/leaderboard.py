"""`bench leaderboard`. Rank all runs of each dataset.

Group: Look at results, 6.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import click

from bench.cli.command import (
    METRIC_OF_RUNS,
    Params,
    Results,
    TableFormat,
    Tags,
    command,
    end_with_json,
    is_set,
)
from bench.cli.output import next_steps, run_name, say
from bench.reports.facts import NONE
from bench.reports.html import format_tables
from bench.reports.leaderboard.board import Layout, board_tables
from bench.reports.leaderboard.ranking import leaderboard, main_rows, with_metric
from bench.reports.leaderboard.rows import LeaderboardRow, to_csv
from bench.reports.rows import Currency
from bench.reports.terminal.tables import console, print_table
from bench.store.shipped import shipped_folder


@command(local=True, needs={"--set": "--metric"})
def leaderboard_command(
    folders: tuple[str, ...] = (),
    *,
    dataset: Annotated[str | None, "Only this dataset."],
    tags: Tags,
    table_format: TableFormat = "table",
    metric: Annotated[
        str | None,
        "Add a column with this metric of stored runs: see `bench list metrics`.",
        METRIC_OF_RUNS,
    ],
    params: Params,
    currency: Annotated[
        Currency,
        "What costs per image are counted in: evaluations of the model's own network, operations"
        " (FLOP), or seconds on the run's machine.",
        "--cost",
    ] = "evaluations",
    wide: Annotated[bool, "Show every column and the run of each row; needs a wide terminal."],
    everything: Annotated[
        bool,
        "Also show replays, controls, corrupted runs, and boards of reported results alone.",
        "--all",
    ],
    results: Results,
) -> None:
    """Rank the stored runs of each dataset, together with results that others reported.

    FOLDERS are further folders of runs, in addition to --results. The published runs of this
    toolkit are included unless --results is set. `bench explain rank mark` says what the table
    means.
    """
    all_folders = [Path(results), *map(Path, folders)]
    if not is_set("results") and not tags:
        all_folders.append(shipped_folder())
    rows = leaderboard(all_folders, dataset, tags)
    if metric is not None:
        rows = with_metric(rows, metric, params)
    end_with_json([row.plain() for row in rows])
    if table_format == "csv":
        click.echo(to_csv(rows), nl=False)
        return
    shown = rows if everything or table_format != "table" else main_rows(rows)
    layout: Layout = "wide" if wide else "usual"
    name = partial(_run_name, results) if wide else None
    tables = board_tables(shown, metric, currency, layout, name)
    if table_format != "table":
        click.echo(format_tables(tables, table_format, "Leaderboard"), nl=False)
    elif rows:
        for table in tables:
            print_table(table)
        _print_steps(wide, len(rows) - len(shown))
    elif tags:
        say(f"No complete run has the tag {' and '.join(tags)}.")
    else:
        of = f" of {dataset}" if dataset else ""
        say(f"No complete runs{of} yet. `bench run {dataset or 'digits'}` makes the first.")


def _run_name(results: str, row: LeaderboardRow) -> str:
    return NONE if row.path is None else run_name(Path(row.path), results)


def _print_steps(wide: bool, left_out: int) -> None:
    """Print which options show more, and what can be done with a run."""
    if left_out:
        more = f"--all: {left_out} more rows (replays, controls, corrupted, reported)."
        console().print(more, style="dim")
    see_all = ("see every column, and the run of each row", "the same command with --wide")
    compare = ("compare two runs on the same images", "bench compare RUN_A RUN_B")
    next_steps(compare, ("see one of them", "bench show RUN") if wide else see_all)
