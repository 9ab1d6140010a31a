"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from bench.discovery.loading import load_plugins, metric_of_runs
from bench.errors import UserError

_UNSET = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)  # not set by the user

AS_JSON = "bench.as_json"  # key in a command's context: whether its answer is printed as JSON
json_option = click.option(
    *("--json", "as_json"),
    is_flag=True,
    expose_value=False,
    callback=lambda ctx, option, value: ctx.meta.setdefault(AS_JSON, value),
    help="Print JSON on stdout.",
)
results_option = click.option(
    "--results", default="results", envvar="BENCH_RESULTS", help="Folder of the stored runs."
)
tags_option = click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Only runs with this tag; may be repeated: all must match.",
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Only N recorded images: a stratified sample, the same every time.",
)


Option = Callable[[Any], Any]  # a decorator that adds an option
Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def set_option(help: str = "A parameter; repeat for more.", envvar: str | None = None) -> Option:
    """Return `--set KEY=VALUE`, whose value is a dictionary."""
    return click.option(
        *("--set", "params"),
        multiple=True,
        metavar="KEY=VALUE",
        envvar=envvar,
        callback=_parse_assignments,
        help=help,
    )


def results_and_json(function: Any) -> Any:
    """Add `--results` and `--json`."""
    return results_option(json_option(function))


def options_of_user(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the user set, on the command line or in an environment variable."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in options.items() if source(name) not in _UNSET}


def _parse_assignments(
    ctx: click.Context, option: click.Parameter, assignments: Sequence[str]
) -> dict[str, str]:
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment!r}: expected KEY=VALUE, such as draws=100.")
        values[key.strip()] = value.strip()
    return values


def output_file(option: str, value: str, example: str) -> Path:
    """Return the file that an option names, checked before any work is done.

    UserError if it is a folder or a device, or its folder does not exist; `example` is a file name.
    """
    path = Path(value)
    if path.is_dir():
        message = f"expected a file, got a folder. For example: {path / example}"
        raise UserError(f"{option} {value}: {message}")
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {value}: expected a regular file, got a device or a pipe.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option} {value}: there is no folder {path.absolute().parent}.")
    return path


def figure_file(option: str, value: str) -> Path:
    """Return the file of an option such as `--plot`; UserError also if its format is unknown."""
    from matplotlib.backend_bases import FigureCanvasBase

    path = output_file(option, value, "plot.png")
    suffixes = [f".{suffix}" for suffix in sorted(FigureCanvasBase.get_supported_filetypes())]
    if path.suffix.lower() not in suffixes:
        raise UserError(
            f"{option} {value}: the name must end with the format: {', '.join(suffixes)}."
        )
    return path


def parse_names(text: str | None) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def names_of(kind: str) -> Completion:
    """Return the shell completion of registered names; `kind`: such as `datasets`."""
    return completion(lambda: [spec.name for spec in getattr(load_plugins(), kind)])


def completion(names: Callable[[], Iterable[str]]) -> Completion:
    """Return the shell completion of names that are only listed when it is asked for."""
    return lambda ctx, parameter, incomplete: [n for n in names() if n.startswith(incomplete)]


def metric_options(text: str, default: str | None = None, *, alone: bool = False) -> Option:
    """Return `--metric` with this help, and `--set` for its parameters.

    With `alone`, metrics that compare a run with a rater are rejected.
    """
    metric = click.option(
        "--metric",
        metavar="METRIC",
        default=default,
        shell_complete=names_of("metrics"),
        callback=lambda ctx, option, name: name and (metric_of_runs(name).name if alone else name),
        help=text + (f"  [default: {default}]" if default else ""),
    )
    return lambda function: metric(set_option()(function))
