"""`bench study`. Run a grid of experiments declared in a file.

Group: Many runs, repeated and published, 1.

`bench reproduce`. Repeat a published experiment.

Group: Many runs, repeated and published, 2.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from bench.boards.study.documents import StudyReport
from bench.boards.study.report import study_report
from bench.boards.study.tables import check_pivoted, pivot, study_tables
from bench.boards.text import format_tables
from bench.cli.list import protocols as list_protocols
from bench.cli.options import figure_file, json_option, options_of_user, parse_names
from bench.cli.output import next_steps, print_json, results_argument, say, step_after_plan
from bench.cli.progress import Progress, StudyProgress
from bench.cli.settings import config_options, metric_options
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.render.plan import print_reproduction, print_study_plan
from bench.render.study_figures import corruption_plot, forest_plot
from bench.render.svg import Drawing, save_figure
from bench.render.tables import print_table
from bench.running.command import reproducing_command
from bench.running.study.file import find_state, read_study_file
from bench.running.study.plan import plan_study
from bench.running.study.run import run_study
from bench.running.verbs.reproduce import reproduce
from bench.store.folder import find_run, read_manifest
from bench.store.studies import study_folder

TABLE_FORMATS = ("table", "markdown", "csv", "latex", "html", "json")
MACHINE_OPTIONS = (
    "results",
    "device",
    "batch_size",
    "offline",
    "executor",
    "workers",
    "ray_address",
)


@click.command()
@click.argument("file")
@click.option(
    "--dry-run", is_flag=True, help="Print every run and its estimated cost without running."
)
@click.option(
    "--pilot", "pilot_only", is_flag=True, help="Score only the pilots, a few images of each run."
)
@click.option("--show", is_flag=True, help="Print the results so far without running.")
@click.option(
    "--format",
    "table_format",
    type=click.Choice(TABLE_FORMATS),
    default="table",
    help="Output format.  [default: table]",
)
@click.option("--rows", help="Axis for the rows of a pivot table; needs --columns.")
@click.option("--columns", help="Axis for the columns of a pivot table; needs --rows.")
@click.option(
    "--value",
    metavar="QUANTITY",
    default="accuracy",
    help="Quantity in the pivot table: a metric in summaries, cost, seconds, n or status."
    "  [default: accuracy]",
)
@click.option(
    "--over",
    default="seed,template",
    help="Axes to pool over when comparing methods.  [default: seed,template]",
)
@metric_options(
    "Metric whose differences are tested: see `bench list metrics`.", "accuracy", alone=True
)
@click.option(
    "--margin", type=float, help="Treat differences smaller than this as equal, e.g. 0.02."
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="CSV file with accuracies of ten or more models, one column per dataset of `shifts`, for"
    " effective robustness; needs --show.",
)
@click.option("--figure", help="Save a forest plot to this file: .png, .svg or .pdf.")
@click.option(
    "--corruption-figure", help="Save a plot of errors against corruption severity to this file."
)
@config_options(MACHINE_OPTIONS)
@json_option
@click.pass_context
def study_command(
    ctx: click.Context,
    /,
    file: str,
    dry_run: bool,
    pilot_only: bool,
    show: bool,
    table_format: str,
    rows: str | None,
    columns: str | None,
    value: str,
    over: str,
    metric: str,
    params: dict[str, str],
    margin: float | None,
    reference: Path | None,
    figure: str | None,
    corruption_figure: str | None,
    as_json: bool,
    **machine: object,
) -> int:
    """Run a grid of experiments declared in FILE, a TOML file, and print the results.

    Each run is stored in the results folder like any other. Complete runs are not repeated, so the
    same command resumes an interrupted study.

    If some runs fail, the remaining ones still run and the exit code is 3. It is 2 if the input is
    invalid or a dry run finds something missing, and 0 with --show, whose FILE may also be the name
    of a study that was started.
    """
    if (rows is None) != (columns is None):
        raise UserError("--rows and --columns must be given together, each with an axis.")
    if rows is None and options_of_user(ctx, {"value": value}):
        raise UserError("--value needs --rows and --columns.")
    if reference is not None and not show:
        raise UserError("--reference needs --show.")
    check_pivoted(value)
    as_json = as_json or table_format == "json"
    settings = options_of_user(ctx, machine)
    results = Path(settings.get("results") or "results")
    option = results_argument(str(results))
    machine_options = option + "".join(
        f" --{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in settings.items()
        if name != "results"
    )
    drawings: list[tuple[str, str | None, Callable[[StudyReport], Drawing]]] = [
        ("--figure", figure, forest_plot),
        ("--corruption-figure", corruption_figure, corruption_plot),
    ]
    plots = [(figure_file(name, path), plot) for name, path, plot in drawings if path is not None]
    if show:
        folder, code = find_state(file, results), 0
    else:
        declared = read_study_file(Path(file), settings)
        if dry_run:
            plan = plan_study(declared)
            if as_json:
                print_json(plan.plain())
            else:
                print_study_plan(plan)
                next_steps(step_after_plan(plan.problems(), "run it"))
            return 2 if plan.problems() else 0

        with StudyProgress(load_plugins().manager) as progress:
            study = run_study(declared, results, progress, pilot_only)
        folder, code = study_folder(results, declared.name), 3 if study.failed else 0

    report = study_report(folder, parse_names(over), metric, margin, params, reference)
    for path, plot in plots:
        save_figure(plot(report).figure(), path)
        say(f"Wrote {path}", err=True)
    if as_json:
        print_json(report.plain())
        return code
    if rows is not None and columns is not None:
        tables = [pivot(report, rows, columns, value)]
    else:
        tables = study_tables(report)
    if table_format == "table":
        for table in tables:
            print_table(table)
        next_steps(*_next_steps(report, option, machine_options))
        return code
    click.echo(format_tables(tables, table_format, report.name), nl=False)
    return code


def _next_steps(report: StudyReport, option: str, machine_options: str) -> list[tuple[str, str]]:
    again = f"bench study {shlex.quote(report.file)}{machine_options}"
    latex = f"bench study {shlex.quote(report.name)} --show --format latex{option}"
    steps = [("print the table for a paper", latex), ("look at the runs", f"bench view{option}")]
    if report.failed:
        steps.insert(0, ("retry the failed runs", again))
    elif report.done < report.cells:
        steps.insert(0, ("run the remaining ones", again))
    return steps


REPRODUCE_OPTIONS = (
    "backbone",
    "strategy",
    "params",
    "hierarchy",
    "data_dir",
    "limit",
    "weights",
    "device",
    "dtype",
    "batch_size",
    "save_errors",
    "results",
    "fresh",
    "offline",
)


@click.command()
@click.argument("protocol", required=False)
@config_options(REPRODUCE_OPTIONS)
@click.option("--published", type=click.FloatRange(0, 1), help="Published value to compare with.")
@click.option("--dry-run", is_flag=True, help="Print the plan and estimated cost without running.")
@json_option
@click.pass_context
def reproduce_command(
    ctx: click.Context,
    /,
    protocol: str | None,
    published: float | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Repeat PROTOCOL, a published experiment, and compare the result with the published one.

    Without PROTOCOL, list all protocols. Options override the protocol's settings, and the output
    names those that differ. For a quick rehearsal with a small bundled backbone:
    `--backbone tiny-landuse --strategy uniform --set draws=8 --limit 10`.

    The exit code is 2 if the input is invalid or a dry run finds something missing.
    """
    results = options["results"] or "results"
    if protocol is None:
        ctx.invoke(list_protocols, name=None, results=results, as_json=as_json)
        return 0
    protocols = load_plugins().protocols
    if protocol not in protocols and Path(results, protocol).is_dir():
        command = reproducing_command(read_manifest(find_run(protocol, results, exact=True)))
        raise UserError(f"{protocol} is a run, not a published experiment. Repeat it by: {command}")
    spec = protocols.get(protocol)
    settings = options_of_user(ctx, options)
    with nullcontext() if dry_run else Progress(load_plugins().manager):
        reproduction = reproduce(spec, settings, published, dry_run=dry_run)
    plan = reproduction.plan
    if as_json:
        print_json(reproduction.plain())
    else:
        print_reproduction(reproduction)
        if plan is not None:
            next_steps(step_after_plan(plan.missing, "repeat it"))
        elif reproduction.run_id:
            option = results_argument(results)
            next_steps(
                ("inspect misclassified images", f"bench report {reproduction.run_id}{option}")
            )
    return 2 if plan is not None and plan.missing else 0
