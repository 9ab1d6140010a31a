"""The command `bench`: its group of commands, its exit codes, and how errors are printed."""

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import groupby
from typing import Any

import click

from bench import __version__, interrupts
from bench.cli.output import JSON_WRITER, prepare_streams, say
from bench.cli.progress import Display
from bench.discovery.commands import own_commands
from bench.discovery.guard import guard, stdout_to_stderr
from bench.discovery.loading import load_plugins
from bench.errors import BenchError, BenchWarning, PluginError, did_you_mean
from bench.machine.guest import at_work

# Options and commands of similar programs → their names here.
OPTION_ELSEWHERE = {
    "--model": "--backbone",
    "-m": "--backbone",
    "-n": "--limit",
    "--num-samples": "--limit",
    "--output-dir": "--results",
    "--output": "--results",
    "-o": "--results",
}
COMMAND_ELSEWHERE = {
    "eval": "bench run",
    "evaluate": "bench run",
    "models": "bench list backbones",
}


class LazyGroup(click.Group):
    """A group that knows the names of its commands, and imports a command's module on its call."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the toolkit's commands, then those of plugins."""
        return [*own_commands(), *sorted(load_plugins().commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command."""
        if own := own_commands().get(name):
            command: click.Command = getattr(import_module(own.module), own.function)
            return command
        return load_plugins().commands.get(name)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; an unexpected error in a plugin's command becomes a PluginError."""
        try:
            return super().invoke(ctx)
        except (BenchError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            name = ctx.invoked_subcommand
            for plugin in load_plugins().loaded:
                if name in plugin.registered.get("command", ()):
                    with guard(plugin.label, f"its command {name!r}"):  # raises a PluginError
                        raise
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by group, without importing any."""
        for title, group in groupby(own_commands().values(), key=lambda command: command.group):
            with formatter.section(title):
                formatter.write_dl([(command.name, command.help) for command in group], col_max=14)
        if commands := load_plugins().commands:
            with formatter.section("From plugins"):
                rows = [(n, commands[n].get_short_help_str(80)) for n in sorted(commands)]
                formatter.write_dl(rows, col_max=14)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, with close matches where there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            close = "" if name in COMMAND_ELSEWHERE else did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"There is no command {name!r}.{close} `bench --help` shows all of them.")
        if name in own_commands() and "--json" in args:
            ctx.meta[JSON_WRITER] = ctx.with_resource(stdout_to_stderr())
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(__version__, prog_name="bench")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Measure how well image generators classify images.

    A text-to-image diffusion model can tell which of several texts fits an image, without training
    for this task. bench scores every image of a dataset with such a model, and reports the
    accuracy, its uncertainty and the cost.

    Start with `bench run digits`: it reads handwritten digits in about a minute, without a GPU or
    a download. `bench COMMAND --help` explains a command.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line and exit with its code."""
    # Waiting OpenMP threads spin 300,000 times by default, and steal the cores they wait for when
    # other processes are busy: design/engine.md has the figures.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # transformers warns even while it is imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.showwarning = warning_printer()
    out = prepare_streams()
    code = _run()
    sys.stdout.flush()
    if out and out.failure and not code:
        say(f"Error: The output cannot be written: {out.failure.strerror}.", err=True)
        code = 1
    sys.exit(code)


def _run() -> int:
    try:
        with at_work(), Display():
            code = cli.main(standalone_mode=False, prog_name="bench")
        interrupts.check()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        _translate_error(error).show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _fail_interrupted()
    except PluginError as error:
        _show_traceback()
        return _fail(f"{error}. What was decided is kept.", error.exit_code)
    except BenchError as error:
        return _fail(str(error), error.exit_code)
    except Exception as error:  # a bug: say what happened, and how to get a traceback
        if interrupts.received():  # a library turned the interrupt into another error
            return _fail_interrupted()
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return _fail(f"The name {error.filename} is too long for a file.", 2)
        _show_traceback()
        return _fail(
            f"Unexpected {type(error).__name__}: {error}\n"
            "What was decided is kept. BENCH_TRACEBACK=1 shows where this happened.",
            1,
        )


def _translate_error(error: click.ClickException) -> click.ClickException:
    """Return the error of an option or command of a similar program, with our name for it.

    Any other error is returned as it is.
    """
    from bench.running.parts.settings import removed_message

    if not isinstance(error, click.UsageError) or error.ctx is None:
        return error
    command = error.ctx.command
    if isinstance(error, click.NoSuchOption):
        if message := removed_message(error.option_name.strip("-").replace("-", "_"), ""):
            return click.ClickException(message)
        own = OPTION_ELSEWHERE.get(error.option_name.replace("_", "-"))
        if any(own in parameter.opts for parameter in command.params):
            return click.UsageError(f"{error.message} It is {own} here.", error.ctx)
    elif isinstance(command, click.Group):
        for name, own in COMMAND_ELSEWHERE.items():
            if repr(name) in str(error):
                return click.UsageError(f"{error.message} That is `{own}` here.", error.ctx)
    return error


def _fail_interrupted() -> int:
    message = f"{interrupts.word()}. What was decided is kept; the same command resumes."
    return _fail(message, interrupts.exit_code())


def _show_traceback() -> None:
    if os.environ.get("BENCH_TRACEBACK") == "1":
        traceback.print_exc()


def warning_printer() -> Callable[..., None]:
    """Return a function for `warnings.showwarning` that prints each of our warnings once.

    Warnings of libraries are printed with BENCH_TRACEBACK=1 only. Python's own filter would repeat
    warnings, since it forgets which it has shown whenever a library changes the filters.
    """
    printed = set[str]()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        wanted = issubclass(category, BenchWarning) or os.environ.get("BENCH_TRACEBACK") == "1"
        if wanted and str(message) not in printed:
            printed.add(str(message))
            say(f"Warning: {message}", err=True)

    return show


def _fail(message: str, code: int) -> int:
    """Print an error, and return the exit code."""
    # A user's input may be a name of a million letters: its two ends are enough to recognise it.
    shown = re.sub(r"\S{500,}", lambda word: f"{word[0][:100]}…{word[0][-100:]}", message)
    say(f"Error: {shown}", err=True)
    return code
