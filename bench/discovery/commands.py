"""The toolkit's own commands, read from the heads of their files; none is imported.

The docstring of a module of `bench.cli` says for each of its commands the line in `bench --help`,
the group and the place there. The command is the function `compare_command`:

    \"\"\"`bench compare`. Compare two runs on the same images.

    Group: Look at results, 4.
    \"\"\"
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

# As help shows them; a group that is not named here comes last.
GROUPS = (
    "Score images",
    "Look at results",
    "See what is there",
    "Try ways to score, without a model",
    "Many runs, repeated and published",
    "Make it yours",
)
_FOLDER = Path(__file__).parents[1] / "cli"
_HEAD = re.compile(r"^(?:\"\"\")?`bench ([\w-]+)`\. (.+)\n\nGroup: (.+), (\d+)\.$", re.MULTILINE)
_HEAD_LENGTH = 600  # characters


class OwnCommand(NamedTuple):
    """A command of the toolkit: `function` in `module`; `help` is its line in `bench --help`."""

    name: str
    module: str
    function: str
    help: str
    group: str
    place: int


@cache
def own_commands() -> dict[str, OwnCommand]:
    """Return the commands by name, in the order of `bench --help`. No plugin can replace one."""
    commands = []
    for path in _FOLDER.glob("*.py"):
        with path.open(encoding="utf-8") as file:
            for name, line, group, place in _HEAD.findall(file.read(_HEAD_LENGTH)):
                module, function = f"bench.cli.{path.stem}", f"{name.replace('-', '_')}_command"
                commands.append(OwnCommand(name, module, function, line, group, int(place)))
    return {command.name: command for command in sorted(commands, key=_order)}


def _order(command: OwnCommand) -> tuple[int, str, int, str]:
    last = len(GROUPS)
    first = GROUPS.index(command.group) if command.group in GROUPS else last
    return first, command.group, command.place, command.name
