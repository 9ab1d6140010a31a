"""`bench study`. Make a grid of runs from one file, with its table.

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
from bench.boards.text import formatted
from bench.cli.list import protocols as list_protocols
from bench.cli.options import figure_file, json_option, listed, set_by_user
from bench.cli.output import after_plan, in_results, next_steps, print_json, say
from bench.cli.progress import Progress, StudyProgress
from bench.cli.settings import config_options, metric_options
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.render.plan import print_reproduction, print_study_plan
from bench.render.study_figures import corruption_plot, critical_difference_plot, forest_plot
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
    *("results", "device", "batch_size", "offline"),
    *("executor", "workers", "ray_address"),
)


@click.command()
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Show every run and its cost; score nothing.")
@click.option("--pilot", "pilot_only", is_flag=True, help="Run the pilots only.")
@click.option("--show", is_flag=True, help="Show the table of the runs so far; run nothing.")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(TABLE_FORMATS),
    default="table",
    help="How to print the table.  [default: table]",
)
@click.option("--rows", help="The axis of the table's rows; needs --columns.")
@click.option("--columns", help="The axis of the table's columns; needs --rows.")
@click.option(
    "--value",
    metavar="FIGURE",
    default="accuracy",
    help="What a pivoted table shows: a metric of summaries, cost, seconds, n or status."
    "  [default: accuracy]",
)
@click.option(
    "--over",
    default="seed,template",
    help="Axes whose runs are pooled into one method.  [default: seed,template]",
)
@metric_options(
    "The metric whose differences are tested: `bench list metrics`.", "accuracy", alone=True
)
@click.option("--margin", type=float, help="Differences below this count as equal, such as 0.02.")
@click.option("--figure", help="Draw a forest plot into this file: .png, .svg or .pdf.")
@click.option(
    "--ranks-figure", help="Draw a critical-difference plot into this file; needs ten datasets."
)
@click.option("--corruption-figure", help="Draw errors against severity into this file.")
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
    wanted: str,
    rows: str | None,
    columns: str | None,
    value: str,
    over: str,
    metric: str,
    params: dict[str, str],
    margin: float | None,
    figure: str | None,
    ranks_figure: str | None,
    corruption_figure: str | None,
    as_json: bool,
    **machine: object,
) -> int:
    """Make all runs that FILE, a TOML file, declares as a grid; then show their table.

    Every run is an ordinary one in the results folder; what is stored already is not made again.
    Runs that fail are reported and the others are made; then the exit code is 3. The same command
    resumes. With --show, FILE may also be the name of a study that was started.
    """
    if (rows is None) != (columns is None):
        raise UserError("--rows and --columns must be given together, each with an axis.")
    check_pivoted(value)
    as_json = as_json or wanted == "json"
    settings = set_by_user(ctx, machine)
    results = Path(settings.get("results") or "results")
    option = in_results(str(results))
    machine_options = option + "".join(
        f" --{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in settings.items()
        if name != "results"
    )
    drawings: list[tuple[str, str | None, Callable[[StudyReport], Drawing]]] = [
        ("--figure", figure, forest_plot),
        ("--ranks-figure", ranks_figure, lambda report: critical_difference_plot(report.ranks)),
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
                next_steps(after_plan(plan.problems(), "make the runs"))
            return 2 if plan.problems() else 0

        with StudyProgress(load_plugins().manager) as progress:
            study = run_study(declared, results, progress, pilot_only)
        folder, code = study_folder(results, declared.name), 3 if study.failed else 0

    report = study_report(folder, listed(over), metric, margin, params)
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
    if wanted == "table":
        for table in tables:
            print_table(table)
        next_steps(*_steps(report, option, machine_options))
        return code
    click.echo(formatted(tables, wanted, report.name), nl=False)
    return code


def _steps(report: StudyReport, option: str, machine_options: str) -> list[tuple[str, str]]:
    made = f"bench study {shlex.quote(report.file)}{machine_options}"
    shown = f"bench study {shlex.quote(report.name)} --show --format latex{option}"
    steps = [("print the table for a paper", shown), ("look at the runs", f"bench view{option}")]
    if report.failed:
        steps.insert(0, ("make what failed again", made))
    elif report.done < report.cells:
        steps.insert(0, ("make the runs that are left", made))
    return steps


_OPTIONS = (
    *("backbone", "strategy", "params", "hierarchy", "data_dir", "limit", "weights"),
    *("device", "dtype"),
    *("batch_size", "save_errors", "results", "fresh", "offline"),
)


@click.command()
@click.argument("protocol", required=False)
@config_options(_OPTIONS)
@click.option("--published", type=click.FloatRange(0, 1), help="The figure to compare with.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost, and run nothing.")
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
    """Repeat PROTOCOL, a published experiment, and show our figure beside the published one.

    Without PROTOCOL, all are listed. Options replace the protocol's settings, and the result says
    which. A rehearsal, offline and in little time:
    `--backbone tiny-landuse --strategy uniform --set draws=8 --limit 10`.
    """
    results = options["results"] or "results"
    if protocol is None:
        ctx.invoke(list_protocols, name=None, results=results, as_json=as_json)
        return 0
    protocols = load_plugins().protocols
    if protocol not in protocols and Path(results, protocol).is_dir():
        again = reproducing_command(read_manifest(find_run(protocol, results, exact=True)))
        raise UserError(f"{protocol} is a run, not a published experiment. Repeat it by: {again}")
    spec = protocols.get(protocol)
    settings = set_by_user(ctx, options)
    with nullcontext() if dry_run else Progress(load_plugins().manager):
        reproduction = reproduce(spec, settings, published, dry_run=dry_run)
    plan = reproduction.plan
    if as_json:
        print_json(reproduction.plain())
    else:
        print_reproduction(reproduction)
        if plan is not None:
            next_steps(after_plan(plan.missing, "repeat it"))
        elif reproduction.run_id:
            option = in_results(results)
            next_steps(("see the mistakes", f"bench report {reproduction.run_id}{option}"))
    return 2 if plan is not None and plan.missing else 0
