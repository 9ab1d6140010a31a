"""`bench leaderboard`. Rank all runs of each dataset.

Group: Look at results, 6.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.boards.exports import to_csv, to_html, to_markdown
from bench.boards.leaderboard import leaderboard, shipped_rows
from bench.cli.options import results_option, set_by_user
from bench.cli.output import next_steps, print_json, say
from bench.machine.offline import offline
from bench.render.leaderboard import print_boards

TEXT = {"markdown": to_markdown, "csv": to_csv, "html": to_html}


@click.command()
@click.argument("folders", nargs=-1)
@results_option
@click.option("--dataset", help="Only this dataset.")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["table", "json", *TEXT]),
    default="table",
    help="How to print it.  [default: table]",
)
@click.option("--wide", is_flag=True, help="Every column, on a wide terminal.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout: --format json.")
@click.pass_context
@offline()
def leaderboard_command(
    ctx: click.Context,
    /,
    folders: tuple[str, ...],
    results: str,
    dataset: str | None,
    wanted: str,
    wide: bool,
    as_json: bool,
) -> None:
    """Rank the stored runs of each dataset, with what others reported beside them.

    FOLDERS are more folders of runs, beside --results. A rank is one more than the number of runs
    of its kind (zero-shot, or trained on the same data) that are significantly better on the same
    images (exact McNemar test, 5 %, corrected for all pairs of the kind by Holm). Runs that share a
    rank are not shown to be equal. The only run of its kind, subsets, replays and reported results
    have none.
    """
    shipped = [] if set_by_user(ctx, {"results": results}) else shipped_rows(dataset)
    rows = leaderboard([Path(results), *map(Path, folders)], dataset, shipped)
    if as_json or wanted == "json":
        print_json([row.plain() for row in rows])
    elif wanted in TEXT:
        click.echo(TEXT[wanted](rows), nl=False)
    elif not rows:
        say("No complete runs yet. `bench run digits` makes the first.")
    else:
        print_boards(rows, wide)
        see = ("see which run each row is of", "bench leaderboard --wide")
        if wide:
            see = ("see one of them", "bench show RUN")
        next_steps(("compare two runs on the same images", "bench compare RUN_A RUN_B"), see)
