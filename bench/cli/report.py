"""`bench report`. Write an HTML report of runs, with misclassified images.

Group: Look at results, 2.

`bench view`. Show the stored runs in a browser, updated live.

Group: Look at results, 3.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import click

from bench.cli.command import (
    METRIC_OF_RUNS,
    Params,
    Results,
    Tags,
    command,
    end_with_json,
    output_file,
)
from bench.cli.output import named_run, next_steps, results_argument, run_name, say
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_of_runs
from bench.errors import UserError
from bench.reports.page.page import write_report
from bench.reports.text import with_subject
from bench.stats.metrics.metric_values import make_metric
from bench.store.folder import list_runs
from bench.store.runs import check_stored, read_runs, with_tags
from bench.view.pages import Pages
from bench.view.server import Server, serve
from bench.view.stored import Stored

DataDirs = Annotated[
    tuple[str, ...],
    "Folder of the images of all runs, or of one DATASET (default: the run's own).",
    "--data-dir",
    {"metavar": "[DATASET=]FOLDER"},
]


@command(local=True, needs={"--set": "--metric"})
def report_command(
    runs: Annotated[tuple[str, ...], {"metavar": "[RUN]..."}] = (),
    *,
    out: Annotated[str, "File to write."] = "report.html",
    data_dirs: DataDirs,
    most_images: Annotated[
        int,
        "Number of pictures on the page, shared among its runs, at least 12 each; 0: none.",
        "--images",
        {"type": click.IntRange(min=0)},
    ] = 240,
    metric: Annotated[
        str | None, "Also show this metric: see `bench list metrics`.", METRIC_OF_RUNS
    ],
    params: Params,
    only: Annotated[
        str | None,
        "Only images with this further label, added by `bench results columns`.",
        {"metavar": "COLUMN=VALUE"},
    ],
    tags: Tags,
    results: Results,
) -> None:
    """Write RUNs (default: all stored runs) as one HTML page that can be shared.

    The page needs no network. It shows the leaderboard, accuracy against evaluations, and for each
    run the confusion matrix, classes, calibration, errors by timestep and misclassified images.
    The pictures are images of the dataset: check its licence before you share the page.
    """
    file = output_file("--out", out, "report.html")
    replaced = " (replaced)" if file.exists() else ""
    if metric is not None:
        make_metric(metric_of_runs(metric), params)  # rejects bad parameters early
    column, _, value = (only or "").partition("=")
    if only is not None and not (column and value):
        raise UserError(f"--only {only}: expected COLUMN=VALUE, such as weather=fog.")
    label = (column, value) if only else None
    paths, notes = _chosen_runs(runs, tags, results)
    report = write_report(
        paths,
        file,
        # Studies and reported results cover all images, so a part of them has none.
        results=None if label else Path(results),
        data_dirs=_data_folders(data_dirs, paths),
        most_images=most_images,
        notes=notes,
        metric=None if metric is None else (metric, params),
        label=label,
    )
    for note in report.notes:
        say(f"Warning: {with_subject(*note)}", err=True)
    left_out = [{"name": name, "reason": reason} for name, reason in report.notes]
    written = {"path": str(file.resolve()), "bytes": report.size, "runs": report.runs}
    end_with_json({**written, "left_out": left_out})
    count = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    say(f"{file}{replaced}: {count}, {report.size / 1e6:.1f} MB. Open it in a browser.")
    steps = [("browse all runs", f"bench view{results_argument(results)}")]
    if len(report.runs) == 2 == len(paths):
        names = " ".join(run_name(path, results) for path in paths)
        steps.insert(0, ("compare the two", f"bench compare {names}"))
    next_steps(*steps)


def _chosen_runs(
    runs: tuple[str, ...], tags: tuple[str, ...], results: str
) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return the folders of `runs`, or of all, and (run, reason) of those not found (UserError)."""
    notes: list[tuple[str, str]] = []
    paths = [] if runs else list_runs(Path(results))
    for run in runs:
        try:
            paths.append(named_run(run, results))
        except UserError as error:
            notes.append((run, str(error)))
    paths = list(dict.fromkeys(with_tags(paths, tags)))
    # With notes alone, `write_report` raises an error that states them.
    if not (paths or notes) and tags:
        raise UserError(f"No run in {results} has the tag {' and '.join(tags)}.")
    if not (paths or runs):
        raise UserError(
            f"There is no run in {Path(results).absolute()}. `bench run digits` makes the first."
        )
    return paths, notes


@command(local=True, json=False)
def view_command(
    *,
    data_dirs: DataDirs,
    port: Annotated[
        int | None,
        "Port on 127.0.0.1; 0: any free one (default: the first free one from 8421 on).",
        {"type": click.IntRange(0, 65535)},
    ],
    results: Results,
) -> None:
    """Show the stored runs in a browser, on pages that update themselves.

    They show progress, accuracy with its interval, comparisons of two runs, and misclassified
    images. They are served on 127.0.0.1, to this machine only, change nothing and use no network.
    Ctrl-C stops the server.
    """
    if not Path(results).is_dir():
        raise UserError(
            f"There is no folder {results}. `bench run digits` makes the first run in ./results."
        )
    folders = _data_folders(data_dirs, list_runs(Path(results)))
    server = Server(Pages(Stored(Path(results), folders)), port)

    def ready(url: str) -> None:
        say(f"{results} is shown at {url} (Ctrl-C stops the server)")
        next_steps(("write a page to share", f"bench report{results_argument(results)}"))

    serve(server, ready)


def _data_folders(values: tuple[str, ...], paths: Iterable[Path]) -> dict[str, str]:
    """Return dataset → folder; the key "" stands for all other datasets of the runs in `paths`."""
    folders = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals or Path(value).is_dir():  # the folder's name may contain "="
            name, folder = "", value
        if not Path(folder).is_dir():
            raise UserError(f"--data-dir {value}: there is no folder {folder}.")
        folders[name] = folder
    if named := [name for name in folders if name]:
        readable = read_runs(paths, lambda *_: None)  # the report names unreadable runs
        datasets = {run.manifest.dataset.name for run in readable}
        check_stored("dataset", named, {*datasets, *load_plugins().datasets.by_name()})
    return folders
