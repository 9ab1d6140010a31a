"""`bench completion`. Complete commands and names with the Tab key.

Group: Make it yours, 2.
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from bench.cli.output import say

_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}
# Where each shell reads what it should know at every start.
_ONCE = {
    "bash": "bench completion bash >> ~/.bashrc",
    "zsh": "bench completion zsh >> ~/.zshrc",
    "fish": "bench completion fish > ~/.config/fish/completions/bench.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print what makes SHELL complete commands, options and names with the Tab key.

    For good: bench completion bash >> ~/.bashrc (zsh: ~/.zshrc; fish:
    > ~/.config/fish/completions/bench.fish). Then start a new shell.
    """
    completion = _SHELLS[shell]
    click.echo(completion(ctx.find_root().command, {}, "bench", "_BENCH_COMPLETE").source())
    if sys.stdout.isatty():
        say(f"For good: {_ONCE[shell]}, then start a new shell.", err=True)
