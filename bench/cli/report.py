"""`bench report`. Write runs on one HTML page, with the mistakes.

Group: Look at results, 2.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.output import next_steps, print_json, results_option, run_name, say
from bench.errors import UserError
from bench.machine.offline import offline
from bench.store.folder import find_run, list_runs

data_dirs_option = click.option(
    "--data-dir",
    "data_dirs",
    multiple=True,
    metavar="[DATASET=]FOLDER",
    help="Where the images lie, of all runs or of a dataset's (default: where the run had them).",
)


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--out", default="report.html", show_default=True, help="The page's file.")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@data_dirs_option
@click.option(
    "--images",
    "most_images",
    type=click.IntRange(min=0),
    default=240,
    show_default=True,
    help="Pictures on the page, shared among its runs; 0: none.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@offline()
def command(
    runs: tuple[str, ...],
    out: str,
    results: str,
    data_dirs: tuple[str, ...],
    most_images: int,
    as_json: bool,
) -> None:
    """Write one HTML page of RUNs (default: all that are stored) to look at and pass on.

    It needs no network: leaderboard, accuracy against evaluations, and of each run its confusion
    matrix, classes, calibration, errors by timestep, and pictures of what it got wrong. The
    pictures are images of the dataset: mind its licence before you pass the page on.
    """
    file = Path(out)
    if not file.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {file.absolute().parent}.")
    if file.is_dir():
        raise UserError(
            f"--out {out}: that is a folder; name a file, such as {file / 'report.html'}."
        )
    if file.exists() and not file.is_file():
        raise UserError(f"--out {out}: that is a device or a pipe, not a file; it stays as it is.")
    notes: list[tuple[str, str]] = []
    paths: list[Path] = []
    for run in runs:
        try:
            paths.append(find_run(run, results))
        except UserError as error:
            notes.append((run, str(error)))
    if not runs:
        paths = list_runs(Path(results))
        if not paths:
            raise UserError(f"There is no run in {results}. `bench run digits` makes the first.")

    from bench.render.page import write_report

    report = write_report(
        list(dict.fromkeys(paths)), file, Path(results), data_folders(data_dirs), most_images, notes
    )
    for name, reason in report.notes:
        say(f"Warning: {name}: {reason}", err=True)
    if as_json:
        print_json(
            {
                "path": str(file.resolve()),
                "bytes": report.size,
                "runs": report.runs,
                "left_out": [{"name": name, "reason": reason} for name, reason in report.notes],
            }
        )
    else:
        runs_said = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
        say(f"{file}: {runs_said}, {report.size / 1e6:.1f} MB. Open it in a browser.")
        steps = [("see all runs as they are made", f"bench view{results_option(results)}")]
        if len(report.runs) == 2 == len(paths):
            names = " ".join(run_name(path, results) for path in paths)
            steps.insert(0, ("compare the two", f"bench compare {names}"))
        next_steps(*steps)


def data_folders(values: tuple[str, ...]) -> dict[str, str]:
    """Return the folder of each dataset named, and under "" that of all others."""
    folders = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals or Path(value).is_dir():  # a folder may have the sign in its name
            name, folder = "", value
        if not Path(folder).is_dir():
            raise UserError(f"--data-dir {value}: there is no folder {folder}.")
        folders[name] = folder
    return folders
