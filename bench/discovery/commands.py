"""The toolkit's own commands, read from the source of their modules without importing them.

The docstring of a module of `bench.cli` declares, for each of its commands, the line in
`bench --help`, the group there and the position in the group. The command below is the function
`compare_command`:

    \"\"\"`bench compare`. Compare two runs on the same images.

    Group: Look at results, 4.
    \"\"\"
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

# In the order of `bench --help`.
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
_HEAD_LENGTH = 600  # characters that are read of a file


class OwnCommand(NamedTuple):
    """A command of the toolkit: `function` in `module`; `help` is its line in `bench --help`."""

    name: str
    module: str
    function: str
    help: str
    group: str
    position: int


@cache
def own_commands() -> dict[str, OwnCommand]:
    """Return the toolkit's commands by name, in the order of `bench --help`."""
    commands = []
    for path in _FOLDER.glob("*.py"):
        with path.open(encoding="utf-8") as file:
            for name, line, group, position in _HEAD.findall(file.read(_HEAD_LENGTH)):
                module, function = f"bench.cli.{path.stem}", f"{name.replace('-', '_')}_command"
                commands.append(OwnCommand(name, module, function, line, group, int(position)))
    commands.sort(key=lambda command: (GROUPS.index(command.group), command.position))
    return {command.name: command for command in commands}
