"""`bench new`. Create a plugin package, ready to test.

Group: Make it yours, 1.

`bench plugins`. List installed plugins, and what failed to load.

Group: See what is there, 2.

`bench completion`. Print the script for shell completion.

Group: Make it yours, 2.
"""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import click
from click.shell_completion import get_completion_class

from bench.authoring import Kind, write_package
from bench.cli.command import command, end_with_json
from bench.cli.output import next_steps, say
from bench.discovery.loading import load_plugins
from bench.errors import some_of


@command()
def new_command(
    kind: Kind, name: str, *, into: Annotated[str, "Folder in which the package is created."] = "."
) -> None:
    """Create a package with a dataset, backbone, strategy or metric, or all of them (plugin).

    It can be installed and passes its tests as it is; then replace the example's code by your own.
    NAME is what `bench run` will call it. The package is bench-NAME, in a folder of that name.
    """
    package = write_package(kind, name, Path(into), load_plugins())
    end_with_json({**asdict(package), "folder": str(package.folder.resolve())})
    say(f"Wrote {package.folder}:")
    for file in package.files:
        say(f"  {file}")
    next_steps(
        ("go there", f"cd {shlex.quote(str(package.folder))}"),
        ("install it", "pip install -e '.[test]'"),
        ("test it", "pytest"),
        ("next, read", "README.md there"),
    )


@command()
def plugins_command() -> None:
    """List the installed plugins: what each registered, or why it failed."""
    rows = [
        {**asdict(plugin), "status": "failed" if plugin.error else "loaded"}
        for plugin in load_plugins().loaded
    ]
    end_with_json(rows)
    from bench.reports.terminal.tables import print_rows

    keys, lines = ("name", "distribution", "version", "status"), []
    for row in rows:
        registered = (f"{kind}: {some_of(names)}" for kind, names in row["registered"].items())
        lines.append([*(row[key] for key in keys), row["error"] or "; ".join(registered)])
    print_rows(["plugin", *keys[1:], "registers"], lines, optional=["version", "distribution"])
    next_steps(("write one of your own", "bench new plugin NAME"))


@command(json=False)
def completion_command(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script that makes SHELL complete commands, options and names with the Tab key.

    To enable it in every new shell: bench completion bash >> ~/.bashrc (zsh: ~/.zshrc; fish:
    > ~/.config/fish/completions/bench.fish).
    """
    completion = get_completion_class(shell)
    assert completion is not None
    root = click.get_current_context().find_root()
    click.echo(completion(root.command, {}, "bench", "_BENCH_COMPLETE").source())
    if sys.stdout.isatty():
        say("To enable it in every new shell: bench completion --help", err=True)
