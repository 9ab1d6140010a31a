"""`bench study`. Run a grid of experiments from a file, or a published one.

Group: Many runs, repeated and published, 1.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import click

from bench.cli.command import (
    METRIC_OF_RUNS,
    Params,
    TableFormat,
    command,
    end_with_json,
    figure_file,
    is_set,
    names_of,
)
from bench.cli.output import next_steps, results_argument, say, step_after_plan, wrote
from bench.cli.progress import StudyProgress
from bench.cli.settings import config_options
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_specs
from bench.errors import UserError
from bench.inputs.parsing import split_names
from bench.reports.figures.svg import Drawing
from bench.reports.html import format_tables
from bench.reports.study.documents import StudyReport
from bench.reports.study.figures import change_plot, corruption_plot, forest_plot
from bench.reports.study.report import study_report
from bench.reports.study.tables import check_pivoted, pivot, study_tables
from bench.reports.terminal.plan import print_study_plan
from bench.reports.terminal.tables import print_table
from bench.reports.text import Table
from bench.running.command import option_words
from bench.running.parts.settings import about
from bench.running.study.course import run_study
from bench.running.study.file import CHANGES, DeclaredStudy, find_state, read_study_file
from bench.running.study.plan import plan_study
from bench.store.studies import DECLARED, results_of, study_folder

PLOTS: Mapping[str, Callable[[StudyReport], Drawing]] = {
    "--figure": forest_plot,
    "--corruption-figure": corruption_plot,
    "--shift-figure": change_plot,
}


@command(
    needs={
        **{"--rows": "--columns", "--columns": "--rows", "--value": "--rows"},
        "--reference": "--show",
    }
)
@config_options(about("machine"))
@config_options([name for name in CHANGES if name != "params"], variables=False)
def study_command(
    study: Annotated[str, {"shell_complete": names_of("studies")}],
    *,
    dry_run: Annotated[bool, "Print every run and its estimated cost without running."],
    pilot_only: Annotated[bool, "Score only the pilots, a few images of each run.", "--pilot"],
    show: Annotated[bool, "Print the results so far without running."],
    table_format: TableFormat = "table",
    rows: Annotated[str | None, "Axis for the rows of a pivot table; needs --columns."],
    columns: Annotated[str | None, "Axis for the columns of a pivot table; needs --rows."],
    value: Annotated[
        str,
        "Quantity in the pivot table: a metric in summaries, cost, seconds, n or status.",
        {"metavar": "QUANTITY"},
    ] = "accuracy",
    over: Annotated[str, "Axes to pool over when comparing methods."] = "seed,template",
    metric: Annotated[
        str, "Metric whose differences are tested: see `bench list metrics`.", METRIC_OF_RUNS
    ] = "accuracy",
    params: Params,
    margin: Annotated[float | None, "Treat differences smaller than this as equal, e.g. 0.02."],
    reference: Annotated[
        Path | None,
        "CSV file with accuracies of ten or more models, one column per dataset of `shifts`, for"
        " effective robustness; needs --show.",
    ],
    figure: Annotated[str | None, "Save a forest plot to this file: .png, .svg or .pdf."],
    corruption_figure: Annotated[
        str | None, "Save a plot of errors against corruption severity to this file."
    ],
    shift_figure: Annotated[str | None, "Save a plot of the changes under shifts to this file."],
    wide: Annotated[bool, "Also print further notes on each table."],
    **options: object,
) -> None:
    """Run a grid of experiments and print the results, beside published figures if there are any.

    STUDY is a TOML file, or the name of a packaged study such as a published experiment
    (`bench list studies`). Each run is stored in the results folder like any other. Complete runs
    are not repeated, so the same command resumes an interrupted study.

    Options such as --backbone change the runs, and the output names what differs from the file. For
    a quick rehearsal with a small bundled backbone: `--backbone tiny-landuse --strategy uniform
    --set draws=8 --limit 10`.

    If some runs fail, the remaining ones still run and the exit code is 3. It is 2 if the input is
    invalid or a dry run finds something missing, and 0 with --show, whose STUDY may also be the
    name of a study that was started.
    """
    check_pivoted(value)
    metric_params, run_params = (params, {}) if show else _split_params(params, metric)
    settings, changes = _settings_and_changes(options, run_params, show)
    results = Path(str(settings.get("results") or "results"))
    files = zip(PLOTS, (figure, corruption_figure, shift_figure), strict=True)
    plots = [(figure_file(name, file), PLOTS[name]) for name, file in files if file is not None]
    if show:
        folder, code = find_state(study, results), 0
    else:
        declared = read_study_file(study, settings, changes)
        if dry_run:
            print_plan(declared, wide)
            return
        folder, code = make_runs(declared, results, pilot_only)
    report = study_report(folder, split_names(over), metric, margin, metric_params, reference)
    for path, plot in plots:
        with wrote(path):
            plot(report).write(path)
    end_with_json(report.plain(), code)
    tables = _tables(report, rows, columns, value, wide)
    if table_format != "table":
        click.echo(format_tables(tables, table_format, report.name), nl=False)
        return
    words = option_words({k: v for k, v in {**settings, **changes}.items() if k != "results"})
    command = f"bench study {shlex.join([study, *words])}{results_argument(str(results))}"
    print_report(report, tables, folder, command)


def _split_params(
    params: Mapping[str, str], metric: str
) -> tuple[Mapping[str, str], dict[str, str]]:
    """Return the parameters of the tested metric, and those of the runs' strategy."""
    names = metric_specs()[metric].parameters
    of_metric = {name: text for name, text in params.items() if name in names}
    return of_metric, {name: text for name, text in params.items() if name not in names}


def _tables(
    report: StudyReport, rows: str | None, columns: str | None, value: str, wide: bool
) -> list[Table]:
    """Return the tables to print: only the pivot table if its two axes are named."""
    tables = study_tables(report)
    if rows is not None and columns is not None:
        tables = [pivot(report, rows, columns, value)]
    return [table.wide for table in tables] if wide else tables


def _settings_and_changes(
    options: Mapping[str, object], params: Mapping[str, str], show: bool
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the settings of the machine that the user set, and the settings that change the runs.

    UserError if `show`, which prints stored results, is combined with changes of the runs.
    """
    settings = {name: value for name, value in options.items() if is_set(name)}
    changes = {name: settings.pop(name) for name in CHANGES if name in settings}
    changes |= {"params": params} if params else {}
    if show and changes:
        words = " ".join(option_words(changes))
        raise UserError(f"--show prints stored results: leave out {words}")
    return settings, changes


def print_plan(declared: DeclaredStudy, wide: bool = False) -> None:
    """Print what the runs of a study cost."""
    plan = plan_study(declared)
    end_with_json(plan.plain(), 2 if plan.problems() else 0)
    print_study_plan(plan, wide)
    next_steps(step_after_plan(plan.problems(), "run it"))


def make_runs(declared: DeclaredStudy, results: Path, pilot_only: bool = False) -> tuple[Path, int]:
    """Make the runs of a study, and return its folder and the exit code."""
    with StudyProgress(load_plugins().manager) as progress:
        state = run_study(declared, results, progress, pilot_only)
    return study_folder(results, declared.name), 3 if state.failed else 0


def print_report(report: StudyReport, tables: Iterable[Table], folder: Path, command: str) -> None:
    """Print tables of the study in `folder` and next steps; `command` makes its runs."""
    for table in tables:
        print_table(table)
    say(f"\nStudy file: {folder / DECLARED}")
    option = results_argument(str(results_of(folder)))
    latex = f"bench study {shlex.quote(report.name)} --show --format latex{option}"
    steps = [("print the table for a paper", latex), ("look at the runs", f"bench view{option}")]
    if report.failed:
        steps.insert(0, ("retry the failed runs", command))
    elif report.done < report.cells:
        steps.insert(0, ("run the remaining ones", command))
    next_steps(*steps)


def run_grid(declared: DeclaredStudy, dry_run: bool) -> None:
    """Plan or run the study that `bench run` declares with several names or seeds."""
    if dry_run:
        print_plan(declared)
        return
    folder, code = make_runs(declared, Path(declared.cells[0].config.results))
    report = study_report(folder)
    end_with_json(report.plain(), code)
    print_report(report, study_tables(report), folder, "the same command")
