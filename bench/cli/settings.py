"""Click options built from the fields of `RunConfig`, so that a setting is defined once."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from bench.cli.command import SET, Command, Decorator, completion, is_set, names_of, plain_type
from bench.errors import UserError
from bench.running.parts.declaration import help_of, option
from bench.running.parts.settings import RunConfig, Values, chapters, make_config, read_config_file

WHOLE_HELP = "bench.help_all"  # key in a command's context: show every option
# Settings that may have several values.
_REPEATABLE = {n for n, f in RunConfig.model_fields.items() if "list[" in str(f.annotation)}
_REGISTRIES = {"backbone": "backbones", "strategy": "strategies"}  # of a setting's values


class Lines(click.types.StringParamType):
    """Type of a repeatable text option; its environment variable holds one value per line."""

    envvar_list_splitter = "\n"


class Sectioned(Command):
    """A command with a short help, whose `--help-all` shows the settings of a run by chapter."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options, `--help-all` included."""
        help_all = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_whole_help,
            help="Show every option.",
        )
        return [*super().get_params(ctx), help_all]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the most used settings, or every chapter (`--help-all`), and the other options."""
        options = {p.name: p for p in self.get_params(ctx) if isinstance(p, click.Option)}
        (first_title, most_used), *rest = chapters()
        sections = [
            (title, [options.pop(name) for name in names if name in options])
            for title, names in [(first_title, [*most_used, "dry_run", "as_json"]), *rest]
        ]
        whole = WHOLE_HELP in ctx.meta
        sections.append(("This command", list(options.values())))
        for title, shown in sections if whole else (sections[0], sections[-1]):
            records = [record for option in shown if (record := option.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
        if not whole:
            more = sum(len(shown) for _, shown in sections[1:-1])
            formatter.write_paragraph()
            formatter.write_text(
                f"{more} more options: `{ctx.command_path} --help-all`. What a word means:"
                " `bench explain WORD`."
            )


def _show_whole_help(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[WHOLE_HELP] = True
        click.echo(ctx.get_help())
        ctx.exit()


def config_options(names: Sequence[str] | None = None, variables: bool = True) -> Decorator:
    """Return a decorator that adds options, and `BENCH_*` variables, for fields of `RunConfig`.

    `names` are the fields, all if None.
    """

    def decorate(function: Any) -> Any:
        for name, field in reversed(RunConfig.model_fields.items()):
            if name != "dataset" and (names is None or name in names):
                function = _option(name, field, variables)(function)
        return function

    return decorate


def config_from_options(**options: Any) -> RunConfig:
    """Return the validated settings of options, as `settings_from_options`."""
    return make_config(settings_from_options(**options))


def settings_from_options(
    dataset: str | None = None, config_file: str | None = None, **options: Any
) -> Values:
    """Merge settings: options win over variables, then the config file, then the defaults.

    UserError: the config file is invalid, or there is no dataset.
    """
    settings = read_config_file(Path(config_file)) if config_file else {}
    for name, value in options.items():
        if not is_set(name):
            continue
        if name == "params":
            value = {**settings.get("params", {}), **value}
        if name in _REPEATABLE:
            value = value[0] if len(value) == 1 else list(value)
        settings[name] = value
    if dataset is not None:
        settings["dataset"] = dataset
    if settings.get("dataset") is None:
        raise UserError("Which dataset? For a start: `bench run digits`.")
    return settings


def _parse_number(
    kind: type, ctx: click.Context, parameter: click.Parameter, text: str | None
) -> Any:
    """Return an option's text as a number if it is one; pydantic refuses any other text."""
    try:
        return kind(text)
    except (TypeError, ValueError):  # TypeError: the option is not set
        return text


def _option(name: str, field: FieldInfo, variables: bool) -> Decorator:
    """Return the option of a field.

    pydantic checks its value later, as it checks values from a file or a variable.
    """
    if name == "params":
        return click.option("--set", name, help=help_of(field), envvar="BENCH_SET", **SET)
    kind, choices = plain_type(field.annotation)
    plain_kind, *_ = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    is_number, repeated, text = kind in (int, float), name in _REPEATABLE, help_of(field)
    if (choices or is_number) and field.default is not None:
        text = f"{text} [default: {field.default}]"
    metavar: str | None = "TEXT" if repeated or name == "device" else name.upper()
    if choices:
        metavar = f"[{'|'.join(choices)}]"
    elif is_number or kind is bool:
        metavar = {int: "INTEGER", float: "FLOAT"}.get(kind)  # a flag has none
    registered = names_of(_REGISTRIES[name]) if name in _REGISTRIES else None
    return click.option(
        *(option(name), name),
        is_flag=kind is bool or None,
        default=False if kind is bool else None,
        multiple=repeated,
        type=Lines() if repeated else None,
        callback=partial(_parse_number, plain_kind) if plain_kind in (int, float) else None,
        metavar=metavar,
        shell_complete=completion(lambda: choices) if choices else registered,
        help=text,
        envvar=f"BENCH_{name.upper()}" if variables else None,
    )
