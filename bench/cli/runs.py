"""`bench runs`. List the stored runs.

Group: Look at results, 7.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.output import next_steps, print_json, run_name, say


@click.command()
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--dataset", help="Only this dataset.")
@click.option("--wide", is_flag=True, help="A column for each fact, on a wide terminal.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def command(results: str, dataset: str | None, wide: bool, as_json: bool) -> None:
    """List the stored runs, incomplete and unreadable ones too.

    Below a run's id stand the settings in which it differs from the others of its dataset,
    backbone and strategy.
    """
    from bench.boards.inventory import stored_runs

    rows = [row for row in stored_runs(Path(results)) if dataset in (None, row.dataset)]
    if as_json:
        print_json([row.model_dump() for row in rows])
        return
    from bench.render.inventory import print_runs

    if rows:
        print_runs(rows, wide)
        newest = max(rows, key=lambda row: row.created or "")
        next_steps(("see one of them", f"bench show {run_name(Path(newest.path), results)}"))
    else:
        of = f" of {dataset}" if dataset else ""
        say(f"There is no run{of} in {results}. `bench run digits` makes the first.")
