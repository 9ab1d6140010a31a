"""The command as a user types it: in this process, or in one of its own.

A process that imports torch takes five seconds to start, so `bench` is what tests use.
`bench_process` is for what only a process has: its start, its end, its signals, its imports.
"""

import io
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest import mock

import click
from helpers.refusals import names

from bench.cli.command import Command
from bench.discovery.commands import own_commands

TERMINAL = {"COLUMNS": "200"}
PATIENCE = 600.0  # seconds after which a process counts as hanging
AT_THE_START = {
    "PYTHONPATH",
    "OMP_NUM_THREADS",
    "BENCH_LOAD_PLUGINS",
    "BENCH_BLOCK_PLUGINS",
    "BENCH_STRICT_PLUGINS",
}


@dataclass(frozen=True)
class Finished:
    """A command's exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)

    def refuses(self, *subjects: object, code: int = 2) -> bool:
        """Tell whether it ended with this code and an error that names the subjects."""
        name = names(self.err, subjects, f"exit {code}")
        return name and self.code == code and not re.search("Traceback|Unexpected", self.err)


def bench(*arguments: object, **variables: str) -> Finished:
    """Run the command in this process, with captured output and an environment of its own."""
    from bench.cli.main import main

    if late := variables.keys() & AT_THE_START:
        raise ValueError(f"{sorted(late)} are read when a process starts: use bench_process")
    out, err = _capture(), _capture()
    code: object = "main() returned"
    with (
        mock.patch.dict(os.environ, {**TERMINAL, **variables}),
        mock.patch.object(sys, "argv", ["bench", *map(str, arguments)]),
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        warnings.resetwarnings()  # pytest's own rules would hide some from the command
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    assert isinstance(code, int), code
    return Finished(code, _text(out), _text(err))


def bench_process(*arguments: object, **variables: str | None) -> Finished:
    """Run the command in a process of its own; a variable that is None is unset."""
    wanted = {**os.environ, **variables}
    environment = {name: value for name, value in wanted.items() if value is not None}
    return _finished([sys.executable, "-m", "bench", *map(str, arguments)], environment)


def imported_by(code: str, *arguments: object, ends_with: int = 0) -> set[str]:
    """Return the packages, Python's own aside, that a process imports as it runs `code`.

    `ends_with` is the exit code that it must have.
    """
    watched = f"""
import atexit, sys
before = set(sys.modules)
def tell():
    new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
    print(*new - sys.stdlib_module_names - {{"bench", "bench_plugins"}}, file=sys.stderr)
atexit.register(tell)
{code}
"""
    done = python(watched, *arguments)
    assert done.code == ends_with, done.err
    return {name for name in done.err.splitlines()[-1].split() if not name.startswith("_")}


def python(code: str, *arguments: object) -> Finished:
    """Run code in a process of its own, with `arguments` in `sys.argv`."""
    return _finished([sys.executable, "-c", code, *map(str, arguments)], dict(os.environ))


def _finished(command: list[str], environment: dict[str, str]) -> Finished:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**TERMINAL, **environment},
        timeout=PATIENCE,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def _capture() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "utf-8", newline="\n", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def commands() -> Iterator[tuple[list[str], Command]]:
    """Yield the toolkit's commands, those of a group by two words."""
    for name, own in own_commands().items():
        command: Any = getattr(import_module(own.module), own.function)
        if isinstance(command, click.Group):
            for other, leaf in command.commands.items():
                assert isinstance(leaf, Command)
                yield [name, other], leaf
        else:
            yield [name], command
