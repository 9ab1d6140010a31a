"""`bench results columns`, `bench results export` and `bench results push`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from bench.cli.options import results_and_json, results_option
from bench.cli.output import end_with_json, next_steps, results_argument, run_name, say
from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.machine.offline import offline
from bench.reports.error_dataset import Sharing, write_error_dataset
from bench.reports.every_eval_ever import write_every_eval_ever
from bench.reports.hub import eval_results, model_index, prepare_push, send
from bench.reports.leaderboard.exports import run_latex
from bench.reports.samples import to_csv, to_parquet
from bench.store.columns import add_columns, read_columns_csv
from bench.store.folder import find_run, read_manifest
from bench.store.runs import read_run

EVERY_EVAL = "every-eval-ever"
_HUB_DATASET = click.option(
    "--hub-dataset",
    metavar="OWNER/NAME",
    help="The benchmark on the Hub, for eval-results (default: the dataset's source).",
)
_LICENCE = click.option(
    "--licence",
    metavar="SPDX",
    help="The licence of the errors, such as CC-BY-4.0; the card and the Croissant file state it.",
)
_ERROR_BITS = click.option(
    "--error-bits",
    type=click.IntRange(4, 16),
    help="Round errors to so many bits of each draw's spread over the prompts; the folder has a"
    " run id of its own [default: exact].",
)
_TASK = click.option("--task", help="The task's id in that benchmark.  [default: default]")


@click.command()
@click.argument("run")
@click.option(
    "--format",
    "kind",
    type=click.Choice(
        ["model-index", "eval-results", "csv", "parquet", "latex", "errors", EVERY_EVAL]
    ),
    default="model-index",
    show_default=True,
)
@click.option(
    "--out", help="A file to write instead of stdout; for errors and every-eval-ever, the folder."
)
@_HUB_DATASET
@_TASK
@_LICENCE
@_ERROR_BITS
@results_option
def export(
    run: str,
    kind: str,
    out: str | None,
    hub_dataset: str | None,
    task: str | None,
    licence: str | None,
    error_bits: int | None,
    results: str,
) -> None:
    """Write RUN for another tool.

    \b
    model-index   the YAML of a model card on the Hugging Face Hub
    eval-results  an entry for .eval_results/ in a model's repository on the Hub
    csv, parquet  one row per image: label, prediction, margin, cost, and as
                  stability the normal probability that the winner's expected
                  error is below the runner-up's, empty for strategies that stop
                  early: they do where the margin is large
    latex         metrics and cost as a table for a paper
    errors        every recorded error as a dataset, which others can replay
    every-eval-ever
                  a document and one line per image for the database of that
                  name (arXiv 2606.14516), below the folder --out
    """  # noqa: D301  # a real \b: click keeps the lines after it as they are
    path = find_run(run, results)
    if kind in ("parquet", "errors", EVERY_EVAL) and out is None:
        what = "file" if kind == "parquet" else "folder"
        raise UserError(f"--format {kind} writes a {what}: name it with --out.")
    if kind == "errors":
        files = write_error_dataset(path, Path(str(out)), Sharing(licence, error_bits))
        say(f"{out}: {len(files)} files, {_format_size(sum(f.stat().st_size for f in files))}")
        next_steps(
            ("replay a strategy on it", f"bench replay {shlex.quote(str(out))} --strategy race"),
            _dry_run_step(run, kind, results),
        )
        return
    if kind == EVERY_EVAL:
        for file in write_every_eval_ever(path, Path(str(out))):
            say(f"Wrote {file}", err=True)
        return
    content = _content(kind, path, hub_dataset, task)
    if out is not None:
        with writing(f"--out {out}"):
            write_atomically(Path(out), content)
        say(f"Wrote {out}", err=True)
        if kind == "eval-results":
            next_steps(_dry_run_step(run, kind, results))
    else:
        click.echo(str(content).rstrip("\n"))


def _dry_run_step(run: str, kind: str, results: str) -> tuple[str, str]:
    words = ["bench", "results", "push", run, "--to", "OWNER/NAME", "--format", kind, "--dry-run"]
    return "see what would go to the Hub", shlex.join(words) + results_argument(results)


def _content(kind: str, path: Path, dataset: str | None, task: str | None) -> str | bytes:
    if kind == "model-index":
        return model_index(path)
    if kind == "eval-results":
        return eval_results(path, dataset, task)
    if kind == "latex":
        return run_latex(path) + "\n"
    stored = read_run(path)
    stored.require_decisions()
    return (to_csv if kind == "csv" else to_parquet)(path, stored.manifest)


@click.command()
@click.argument("run")
@click.option("--to", required=True, metavar="OWNER/NAME", help="The repository on the Hub.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["eval-results", "errors"]),
    default="eval-results",
    show_default=True,
    help="A result for a model's repository, or a dataset of the recorded errors.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--pull-request", is_flag=True, help="Open a pull request instead of committing.")
@click.option(
    "--create", is_flag=True, help="Create the repository, as a private one, if it does not exist."
)
@_HUB_DATASET
@_TASK
@_LICENCE
@_ERROR_BITS
@results_and_json
def push(
    run: str,
    to: str,
    kind: str,
    dry_run: bool,
    pull_request: bool,
    create: bool,
    hub_dataset: str | None,
    task: str | None,
    licence: str | None,
    error_bits: int | None,
    results: str,
) -> None:
    """Send RUN's result, or its recorded errors, to a repository on the Hugging Face Hub.

    Nothing is sent without this command. Log in first with `hf auth login`.
    """
    sharing = Sharing(licence, error_bits)
    with prepare_push(find_run(run, results), kind, to, hub_dataset, task, sharing) as what:
        sizes = {name: file.stat().st_size for name, file in what.files.items()}
        address = None if dry_run else send(what, pull_request, create)
        end_with_json({"repository": to, "kind": what.kind, "files": sizes, "address": address})
        for name, size in sizes.items():
            say(f"{what.kind} {to}: {name} ({_format_size(size)})")
            if dry_run and kind == "eval-results":
                say(what.files[name].read_text("utf-8").rstrip("\n"))
        say("Nothing was sent." if address is None else f"Sent: {address}")
        if dry_run:
            next_steps(("send it", "the same command without --dry-run"))


def _format_size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


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
def columns(run: str, file: str | None, names: tuple[str, ...], results: str) -> None:
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
        from bench.running.dataset_columns import dataset_columns

        added = dataset_columns(manifest, names)
    columns_of_run = add_columns(path, manifest, added)
    end_with_json({name: len(labels) for name, labels in columns_of_run.items()})
    for name, labels in added.items():
        kinds = sorted(set(labels.values()) - {""})
        say(f"{name}: {len(labels):,} images, {len(kinds):,} values")
    first = next(iter(added))
    shown = f"bench show {run_name(path, results)} --metric accuracy --by {shlex.quote(first)}"
    next_steps(("the accuracy by value", shown))
