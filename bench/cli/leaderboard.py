"""`bench leaderboard`. Rank all runs of each dataset.

Group: Look at results, 6.
"""

import shlex
from pathlib import Path
from typing import get_args

import click

from bench.cli.command import command, end_with_json, flag, is_set, metric_options, tags_option
from bench.cli.output import next_steps, results_argument, run_name, say
from bench.reports.formats import NONE
from bench.reports.html import format_tables
from bench.reports.leaderboard.board import board_tables
from bench.reports.leaderboard.ranking import leaderboard, with_metric
from bench.reports.leaderboard.rows import LeaderboardRow, to_csv
from bench.reports.rows import Currency
from bench.reports.terminal.leaderboard import print_boards
from bench.store.shipped import shipped_folder


@command(results=True, local=True, needs={"--set": "--metric"})
@click.argument("folders", nargs=-1)
@click.option("--dataset", help="Only this dataset.")
@tags_option
@click.option(
    "--format",
    "table_format",
    type=click.Choice(["table", "markdown", "csv", "html"]),
    default="table",
    help="Output format.  [default: table]",
)
@metric_options(
    "Add a column with this metric of stored runs: see `bench list metrics`.", alone=True
)
@click.option(
    "--cost",
    "currency",
    type=click.Choice(get_args(Currency)),
    default="evaluations",
    help="What costs per image are counted in: evaluations of the model's own network, operations"
    " (FLOP), or seconds on the run's machine.  [default: evaluations]",
)
@flag("--wide", "Show every column and the run of each row; needs a wide terminal.")
@flag(
    "--all",
    "Also show replays, controls, corrupted runs, and boards of reported results alone.",
    "everything",
)
def leaderboard_command(
    folders: tuple[str, ...],
    results: str,
    dataset: str | None,
    tags: tuple[str, ...],
    table_format: str,
    metric: str | None,
    params: dict[str, str],
    currency: Currency,
    wide: bool,
    everything: bool,
) -> None:
    """Rank the stored runs of each dataset, together with results that others reported.

    FOLDERS are further folders of runs, in addition to --results. The published runs of this
    toolkit are included unless --results is set. A rank is a range of places: from 1 + the runs
    that are significantly better to the number of runs − those that are significantly worse, among
    complete runs that are zero-shot, or trained on the same data (exact McNemar test on the same
    images, 5 %, corrected for all pairs by Holm). Published runs are ranked among themselves, each
    of yours as if it alone were added. Subsets, controls, corrupted runs and reported results have
    no rank.
    """
    places = [Path(results), *map(Path, folders)]
    if not is_set("results") and not tags:
        places.append(shipped_folder())
    rows = leaderboard(places, dataset, tags)
    if metric is not None:
        rows = with_metric(rows, metric, params)
    end_with_json([row.plain() for row in rows])
    if table_format == "csv":
        click.echo(to_csv(rows), nl=False)
    elif table_format != "table":
        click.echo(
            format_tables(
                board_tables(rows, metric=metric, currency=currency), table_format, "Leaderboard"
            ),
            nl=False,
        )
    elif not rows:
        absent = "No complete runs yet. `bench run digits` makes the first."
        say(f"No complete run has the tag {' and '.join(tags)}." if tags else absent)
    else:

        def name(row: LeaderboardRow) -> str:
            return NONE if row.path is None else run_name(Path(row.path), results)

        print_boards(rows, name, wide, everything, metric, currency)
        options = [("--dataset", dataset), *(("--tag", tag) for tag in tags), ("--metric", metric)]
        words = [word for option, value in options if value for word in (option, value)]
        again = shlex.join(["bench", "leaderboard", *folders, "--wide", *words])
        see = ("see which run each row is of", again + results_argument(results))
        if wide:
            see = ("see one of them", "bench show RUN")
        next_steps(("compare two runs on the same images", "bench compare RUN_A RUN_B"), see)
