"""`bench results columns`: further labels of a run's images, for metrics, pages and reports."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from bench.cli.options import results_and_json
from bench.cli.output import next_steps, print_json, run_name, say
from bench.errors import UserError
from bench.machine.offline import offline
from bench.store.columns import add_columns, read_columns_csv
from bench.store.folder import find_run, read_manifest


@click.command()
@click.argument("run")
@click.argument("file", required=False)
@click.option(
    "--of-dataset",
    "names",
    multiple=True,
    metavar="COLUMN",
    help="A column of the run's dataset; repeat for more.",
)
@results_and_json
@offline()
def columns(
    run: str, file: str | None, names: tuple[str, ...], results: str, as_json: bool
) -> None:
    """Add further labels to RUN, from FILE, a CSV file, or from columns of its dataset.

    FILE has a column sample_id and one column per label. Metrics that need further labels read
    them, and `bench view` shows the images with one value. They change neither the run nor its id.
    """
    if (file is None) == (not names):
        raise UserError("Give a CSV file, or --of-dataset COLUMN.")
    path = find_run(run, results)
    manifest = read_manifest(path)
    if file is not None:
        added = read_columns_csv(Path(file))
    else:
        from bench.running.verbs.columns import dataset_columns

        added = dataset_columns(manifest, names)
    document = add_columns(path, manifest, added)
    if as_json:
        print_json({name: len(labels) for name, labels in document.columns.items()})
        return
    for name, labels in added.items():
        kinds = sorted(set(labels.values()) - {""})
        say(f"{name}: {len(labels):,} images, {len(kinds):,} values")
    first = next(iter(added))
    shown = f"bench show {run_name(path, results)} --metric accuracy --by {shlex.quote(first)}"
    next_steps(("the accuracy by value", shown))
