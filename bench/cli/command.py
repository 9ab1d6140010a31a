"""Declare commands: their options, their results as JSON, exit codes, and refused combinations."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource

from bench.cli.output import print_json
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_of_runs
from bench.errors import GateError, UserError
from bench.machine.offline import offline

_UNSET = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP, None)  # not set by the user
_AS_JSON, _END = "bench.as_json", "bench.end"  # keys in a command's context


class Command(click.Command):
    """A command of the toolkit, with `--json` unless `json` is False.

    The signature of its function declares its arguments and options: see `parameters_of`. With
    `local` it uses no network. `needs` maps options to the option without which they have no
    effect, and of the options `apart` at most one can be set.
    """

    def __init__(
        self,
        *arguments: Any,
        json: bool = True,
        local: bool = False,
        needs: Mapping[str, str] | None = None,
        apart: Sequence[str] = (),
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self.local, self.needs, self.apart = local, needs or {}, apart
        assert self.callback is not None
        self.params[:0] = parameters_of(self.callback)
        if json:
            names, text = ("--json", "as_json"), "Print JSON on stdout."
            note = _note_json
            self.params.append(
                click.Option(names, is_flag=True, expose_value=False, callback=note, help=text)
            )

    def invoke(self, ctx: click.Context) -> int:
        """Refuse options that have no effect, call the command, and return its exit code."""
        name_of = {option: str(p.name) for p in self.params for option in p.opts}

        def has_value(option: str) -> bool:
            value = ctx.params[name_of[option]]
            return value is not None and value is not False

        for option, needed in self.needs.items():
            source = ctx.get_parameter_source(name_of[option])
            if source is ParameterSource.COMMANDLINE and not has_value(needed):
                raise UserError(f"{option} has no effect without {needed}.")
        if len(chosen := list(filter(has_value, self.apart))) > 1:
            raise UserError(f"{' and '.join(chosen)} cannot be combined.")
        with offline() if self.local else nullcontext():
            super().invoke(ctx)
        code, gate = ctx.meta.get(_END, (0, None))
        if gate is not None:
            raise gate
        return int(code)


command = partial(click.command, cls=Command)
Decorator = Callable[[Any], Any]
Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def _note_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[_AS_JSON] = value


def wants_json() -> bool:
    """Return whether the command was called with `--json`."""
    return bool(click.get_current_context().meta.get(_AS_JSON))


def end_with_json(value: Any, code: int = 0, gate: GateError | None = None) -> None:
    """Set a command's exit code, and with `--json` print its result `value` and end it.

    Without `--json`, the command goes on and prints its result as text. `gate` is the error of a
    limit that the result has failed, such as --min-accuracy: it is raised when the command ends.
    """
    context = click.get_current_context()
    context.meta[_END] = code, gate
    if wants_json():
        print_json(value)
        if gate is not None:
            raise gate
        context.exit(code)


def parameters_of(function: Callable[..., Any]) -> Iterator[click.Parameter]:
    """Yield the arguments and options that the signature of a command's function declares.

    Its positional parameters are arguments, the keyword-only ones options. `Annotated` has the
    type, the help of an option, its names if they are not `--NAME`, and further keywords of click
    as a dictionary. An argument is required unless it has a default or may be None.
    """
    for name, declared in signature(function, eval_str=True).parameters.items():
        if declared.kind is Parameter.VAR_KEYWORD:  # settings, whose options `config_options` adds
            continue
        annotation, extras = declared.annotation, []
        if get_origin(annotation) is Annotated:
            annotation, *extras = get_args(annotation)
        kind, choices = plain_type(annotation)
        several = get_origin(kind) is tuple
        may_be_none = annotation is not kind  # `plain_type` took `| None` off
        simple = kind if kind in (int, float, str, Path) else None
        keywords: dict[str, Any] = {"type": click.Choice(choices) if choices else simple}
        has_default = declared.default is not Parameter.empty
        if has_default:
            keywords["default"] = declared.default
        for extra in extras:
            keywords |= extra if isinstance(extra, dict) else {}
        if declared.kind is Parameter.KEYWORD_ONLY:
            texts = [extra for extra in extras if isinstance(extra, str)]
            names = [text for text in texts if text.startswith("-")]
            # An alias such as `Params` has a help, after which a command may give its own.
            keywords["help"] = [text for text in texts if text not in names][-1]
            keywords |= {"multiple": True} if several else {"is_flag": kind is bool}
            names = names or [f"--{name.replace('_', '-')}"]
            show_default = bool(keywords.get("default"))
            yield click.Option([*names, name], show_default=show_default, **keywords)
        else:
            if several:  # click takes no default here, and passes () without a value
                keywords |= {"nargs": -1, "default": None}
            required = not (has_default or may_be_none)
            yield click.Argument([name], required=required, **keywords)


def plain_type(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return (X, values) of an annotation `X` or `X | None`; X has values if it is a `Literal`."""
    kind = annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    return kind, get_args(kind) if get_origin(kind) is Literal else ()


def is_set(name: str) -> bool:
    """Return whether the user set an option, on the command line or in an environment variable."""
    return click.get_current_context().get_parameter_source(name) not in _UNSET


def _parse_assignments(
    ctx: click.Context, option: click.Parameter, assignments: Sequence[str]
) -> dict[str, str]:
    """Return the values of `--set KEY=VALUE` by key (UserError)."""
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {assignment!r}: expected KEY=VALUE, such as draws=100.")
        values[key.strip()] = value.strip()
    return values


def output_file(option: str, value: str, example: str) -> Path:
    """Return the file `value` that an option names, checked before any work is done.

    UserError if it is a folder or a device, or its folder does not exist. `example` is a file name
    that the message suggests.
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


def names_of(kind: str) -> Completion:
    """Return the shell completion of the registered names of a kind, such as `datasets`."""
    return completion(lambda: [spec.name for spec in getattr(load_plugins(), kind)])


def completion(names: Callable[[], Iterable[str]]) -> Completion:
    """Return a shell completion that calls `names` only when the user presses the Tab key."""
    return lambda ctx, parameter, incomplete: [n for n in names() if n.startswith(incomplete)]


SET: dict[str, Any] = {"metavar": "KEY=VALUE", "multiple": True, "callback": _parse_assignments}
METRIC: dict[str, Any] = {"metavar": "METRIC", "shell_complete": names_of("metrics")}
# Metrics that compare a run with a rater are rejected.
METRIC_OF_RUNS = {
    **METRIC,
    "callback": lambda ctx, parameter, name: name and metric_of_runs(name).name,
}
Results = Annotated[
    str, "Folder of the stored runs.", {"default": "results", "envvar": "BENCH_RESULTS"}
]
Params = Annotated[dict[str, str], "A parameter; repeat for more.", "--set", SET]
Tags = Annotated[
    tuple[str, ...],
    "Only runs with this tag; may be repeated: all must match.",
    "--tag",
    {"metavar": "TAG"},
]
TableFormat = Annotated[
    Literal["table", "markdown", "csv", "latex", "html"], "Output format.", "--format"
]
Limit = Annotated[
    int | None,
    "Only N recorded images: a stratified sample, the same every time.",
    {"type": click.IntRange(min=1)},
]
