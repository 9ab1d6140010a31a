"""Options made from `RunConfig`, so that a setting is defined once."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from bench.errors import UserError
from bench.running.parts.setting import help_of
from bench.running.settings import RunConfig, make_config, read_config_file
from bench.stats.tested import METRICS

_SPECIAL = {"dataset", "params"}
_REPEATED = {"template"}
_NAMED = {"backbone": "backbones", "strategy": "strategies"}  # field → whose names it takes
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


class Lines(click.types.StringParamType):
    """Text, of which a variable of the environment holds one per line."""

    envvar_list_splitter = "\n"


def names_of(kind: str) -> Complete:
    """Return what completes the registered names of `datasets`, `backbones` or `strategies`."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from bench.discovery.loading import load_plugins

        registry = getattr(load_plugins(), kind)
        return [spec.name for spec in registry if spec.name.startswith(incomplete)]

    return complete


def config_options(names: Sequence[str] | None = None) -> Callable[[Any], Any]:
    """Return a decorator that adds the options of `RunConfig`'s fields, and `--set`.

    Args:
        names: only these fields; None: all of them.
    """

    def decorate(function: Any) -> Any:
        chosen = [n for n in RunConfig.model_fields if names is None or n in names]
        for name in reversed(chosen):
            if name not in _SPECIAL:
                function = _option(name, RunConfig.model_fields[name])(function)
        if "params" in chosen:
            function = click.option(
                "--set",
                "params",
                multiple=True,
                metavar="KEY=VALUE",
                envvar="BENCH_SET",
                help=RunConfig.model_fields["params"].description,
            )(function)
        return function

    return decorate


def metric_option(function: Any) -> Any:
    """Add `--metric`, what differences are tested in."""
    return click.option(
        "--metric",
        type=click.Choice(METRICS),
        default="accuracy",
        help="What differences are tested in.  [default: accuracy]",
    )(function)


def learning_options(function: Any) -> Any:
    """Add RUN and the options of a command that learns from a recorded run."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        click.option(
            "--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored."
        ),
        click.option("--out", help="Also write the result to this file, as JSON."),
        click.option(
            "--limit",
            type=click.IntRange(min=1),
            help="Only N recorded images: stratified, the same ones every time.",
        ),
        click.argument("run"),
    ):
        function = option(function)
    return function


def config_from_options(
    ctx: click.Context, config_file: str | None, dataset: str | None = None, **options: Any
) -> RunConfig:
    """Return the settings: option over variable over file over default.

    Raises:
        UserError: a file or value that does not work.
    """
    settings = read_config_file(Path(config_file)) if config_file else {}
    for name, value in options.items():
        source = ctx.get_parameter_source(name)
        if source not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None):
            if name == "params":
                value = {**settings.get("params", {}), **parse_assignments(value)}
            if name in _REPEATED:
                value = value[0] if len(value) == 1 else list(value)
            settings[name] = value
    if dataset is not None:
        settings["dataset"] = dataset
    if settings.get("dataset") is None:
        raise UserError("Which dataset? For a start: `bench run digits`.")
    return make_config(settings)


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Return what `--set KEY=VALUE` said, as text.

    Raises:
        UserError: one is not of that form.
    """
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment!r}: write it as KEY=VALUE, such as draws=100.")
        values[key.strip()] = value.strip()
    return values


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """One option; pydantic checks the values, so that file and variables are checked alike."""
    kind = _plain_type(field.annotation)
    flag = "--" + name.replace("_", "-")
    keywords: dict[str, Any] = {
        "help": help_of(field),
        "envvar": f"BENCH_{name.upper()}",
        "default": None,
    }
    if kind is bool:
        return click.option(flag, name, is_flag=True, **{**keywords, "default": False})
    if name in _REPEATED:
        return click.option(flag, name, multiple=True, type=Lines(), metavar="TEXT", **keywords)
    if get_origin(kind) is Literal:
        keywords["type"] = click.Choice(get_args(kind))
    elif kind in (int, float):
        keywords["type"] = kind
    else:
        keywords["metavar"] = "TEXT" if name == "device" else name.upper()
    if "type" in keywords and field.default is not None:
        keywords["help"] = f"{keywords['help']} [default: {field.default}]"
    if name in _NAMED:
        keywords["shell_complete"] = names_of(_NAMED[name])
    return click.option(flag, name, **keywords)


def _plain_type(annotation: Any) -> Any:
    """Return the type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation
