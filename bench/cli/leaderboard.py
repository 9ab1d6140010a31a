"""`bench leaderboard`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import click

from bench.analysis.leaderboard import leaderboard
from bench.cli.main import print_json


@click.command()
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--dataset", help="Only this dataset.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def command(results: str, dataset: str | None, as_json: bool) -> None:
    """Rank the stored runs of each dataset, with what others reported beside them.

    Ranks count within a kind: zero-shot, or trained on the same data. Subsets and reported
    results have none.
    """
    rows = leaderboard(Path(results), dataset)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No complete runs yet. `bench run digits` makes the first.")
        return
    from bench.cli.render import table

    sources: list[str] = []
    for (name, split, version), board in groupby(
        rows, key=lambda row: (row["dataset"], row["split"], row["version"])
    ):
        table(
            ["rank", "accuracy", "95 % interval", "evals", "backbone", "strategy", "n", "what"],
            [_line(row, sources) for row in board],
            title=f"{name}/{split}" + (f", version {version}" if version else ""),
        )
    for number, source in enumerate(sources, start=1):
        click.echo(f"({number}) {source}")


def _line(row: dict[str, Any], sources: list[str]) -> list[Any]:
    from bench.cli.render import assignments, provenance

    interval, evaluations = row["accuracy_ci95"], row["evaluations_per_image"]
    what = provenance(row["trained_on"])
    if row["kind"] != "measured":
        what = f"{row['kind']}, {what}"
    if row["kind"] == "reported":
        if row["source"] not in sources:
            sources.append(row["source"])
        what += f" ({sources.index(row['source']) + 1})"
    return [
        row["rank"],
        f"{row['accuracy']:.4f}",
        f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else None,
        f"{evaluations:,.0f}" if evaluations is not None else None,
        row["backbone"],
        f"{row['strategy']} {assignments(row['params'])}".strip(),
        row["n_samples"],
        what,
    ]
