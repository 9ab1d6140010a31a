"""The command `bench`. A command's module is imported only when it is called."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from importlib import import_module
from typing import Any

import click

from bench import __version__, interrupts
from bench.cli import streams
from bench.cli.output import KEPT, say
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.stdout import set_aside
from bench.errors import BenchError, BenchWarning, PluginError, did_you_mean

# name → (module, help); the command's object has the module's name.
COMMANDS = {
    "run": ("bench.cli.run", "Score a dataset with a backbone; resumes where it stopped."),
    "list": ("bench.cli.list", "List datasets, backbones, strategies, protocols or runs."),
    "runs": ("bench.cli.runs", "List the stored runs: `bench list runs`."),
    "fetch": ("bench.cli.fetch", "Download a backbone's weights, for work without a network."),
    "plugins": ("bench.cli.plugins", "List the installed plugins and what became of them."),
    "show": ("bench.cli.show", "Show a stored run."),
    "replay": ("bench.cli.replay", "Run a strategy on a run's recorded errors, without a model."),
    "sweep": ("bench.cli.sweep", "Replay many strategies: cost against agreement."),
    "learn-order": (
        "bench.cli.learn_order",
        "Learn from errors which levels to ask first.",
    ),
    "study": ("bench.cli.study", "Make a grid of runs from one file, and show its table."),
    "power": ("bench.cli.power", "How many images a difference between runs needs."),
    "compare": ("bench.cli.compare", "Compare two runs on the same images; gate a regression."),
    "learn-screen": (
        "bench.cli.learn_screen",
        "Learn from errors how far a screen must reach.",
    ),
    "leaderboard": ("bench.cli.leaderboard", "Rank the stored runs of each dataset."),
    "results": ("bench.cli.results", "Publish, submit, check, export and push results."),
    "report": ("bench.cli.report", "Write runs on one HTML page, with figures and pictures."),
    "view": ("bench.cli.view", "Show the stored runs in a browser, as they are made."),
    "prompts": ("bench.cli.prompts", "Show the prompts of a dataset, with token counts."),
    "perf": ("bench.cli.perf", "Measure a backbone's speed on this machine."),
    "reproduce": ("bench.cli.reproduce", "Repeat a published experiment, beside its figure."),
    "check-data": ("bench.cli.check_data", "Read a dataset once and say what is wrong with it."),
    "classify": ("bench.cli.classify", "Classify pictures of your own."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the toolkit's commands, then those of plugins."""
        return [*COMMANDS, *sorted(load_plugins().commands)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a command."""
        if name in COMMANDS:
            command: click.Command = import_module(COMMANDS[name][0]).command
            return command
        return load_plugins().commands.get(name)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command; an error in a plugin's command is that plugin's."""
        try:
            return super().invoke(ctx)
        except (BenchError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            owner = load_plugins().command_owners.get(ctx.invoked_subcommand or "")
            if owner is None:
                raise
            with guard(owner, f"its command {ctx.invoked_subcommand!r}"):
                raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        plugin_commands = load_plugins().commands
        rows = [(name, help_text) for name, (_, help_text) in COMMANDS.items()]
        rows += [(n, plugin_commands[n].get_short_help_str(80)) for n in sorted(plugin_commands)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, with close matches where there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None:
            close = did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"There is no command {name!r}.{close} `bench --help` shows all of them.")
        if name in COMMANDS and "--json" in args:
            ctx.meta[KEPT] = ctx.with_resource(set_aside())
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bench")
def cli() -> None:
    """Benchmark diffusion classifiers: datasets, backbones and strategies as plugins.

    Start with `bench run digits`: a diffusion classifier reads real handwritten digits in about
    a minute, on any machine.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    # Waiting OpenMP threads spin 300,000 times by default, and steal the cores they wait for when
    # other processes are busy: design/engine-and-store.md has the figures.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    warnings.showwarning = _show_warning
    out = streams.prepare()
    code = _run()
    sys.stdout.flush()
    if out and out.failure and not code:
        say(f"Error: The output cannot be written: {out.failure.strerror}.", err=True)
        code = 1
    sys.exit(code)


def _run() -> int:
    """Run the command and return its exit code; what went wrong is said."""
    try:
        code = cli.main(standalone_mode=False, prog_name="bench")
        interrupts.check()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except PluginError as error:
        _show_traceback()
        return _fail(f"{error}. What was decided is kept.", error.exit_code)
    except BenchError as error:
        return _fail(str(error), error.exit_code)
    except Exception as error:  # a defect of ours: say what, and how to see where
        if interrupts.received():  # some library made another error of it
            return _interrupted()
        _show_traceback()
        return _fail(
            f"Unexpected {type(error).__name__}: {error}\n"
            "What was decided is kept. BENCH_TRACEBACK=1 shows where this happened.",
            1,
        )


def _interrupted() -> int:
    message = f"{interrupts.word()}. What was decided is kept; the same command resumes."
    return _fail(message, interrupts.exit_code())


def _show_traceback() -> None:
    if os.environ.get("BENCH_TRACEBACK") == "1":
        traceback.print_exc()


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Print the toolkit's own warnings plainly; those of libraries are for developers."""
    if issubclass(category, BenchWarning) or os.environ.get("BENCH_TRACEBACK") == "1":
        say(f"Warning: {message}", err=True)


def _fail(message: str, code: int) -> int:
    say(f"Error: {message}", err=True)
    return code
