"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from bench.errors import UserError

_UNSET = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)  # not set by the user

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
results_option = click.option(
    "--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored."
)
tags_option = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Only runs with this tag; repeat for more."
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Only N recorded images: stratified, the same ones every time.",
)


Option = Callable[[Any], Any]  # a decorator that adds an option


def set_option(help: str = "A parameter; repeat for more.", envvar: str | None = None) -> Option:
    """Return `--set KEY=VALUE`, whose value is a dictionary."""
    return click.option(
        *("--set", "params"),
        multiple=True,
        metavar="KEY=VALUE",
        envvar=envvar,
        callback=_parsed,
        help=help,
    )


def results_and_json(function: Any) -> Any:
    """Add `--results` and `--json`."""
    return results_option(json_option(function))


def set_by_user(ctx: click.Context, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that the user set, on the command line or in an environment variable."""
    return {n: v for n, v in options.items() if ctx.get_parameter_source(n) not in _UNSET}


def _parsed(
    ctx: click.Context, option: click.Parameter, assignments: Sequence[str]
) -> dict[str, str]:
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment!r}: write it as KEY=VALUE, such as draws=100.")
        values[key.strip()] = value.strip()
    return values


def listed(text: str | None) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
