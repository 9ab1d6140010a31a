"""The commands that the documents show, and what they print.

A block ```` ```console ```` is a session: lines with `$ ` are typed, the lines after them are what
comes. A line `…` stands for any lines. A block with `title="NAME"` is a file of that name. The
sessions of a page run in one folder, from top to bottom. A block ```` ```sh ```` is for commands
whose data, weights or machines are not here: they are only read.

`PYTHONPATH=tests python -m helpers.blocks PAGE…` writes what their commands print today into the
pages.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from helpers.command import Finished
from helpers.interrupted import forked

from bench.cli.main import cli

FENCE = re.compile(
    r"^```(?P<kind>\w+)(?P<rest>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
TITLE = re.compile(r'title="([^"]+)"')
TIMES = re.compile(r"\d[\d,.]*(?= ?(?:s|ms|min|h|images/s|/s|MB|MiB|GB|GiB)\b)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ANYTHING = "…"


@dataclass(frozen=True)
class Typed:
    """A command of a session, the lines that it prints, and where they stand in the page."""

    command: str
    printed: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Written:
    """A file that the page shows."""

    name: str
    text: str


def steps(text: str) -> Iterator[Typed | Written]:
    """Yield what a page does, from top to bottom."""
    for match in FENCE.finditer(text):
        if title := TITLE.search(match["rest"]):
            yield Written(title[1], match["text"])
        elif match["kind"] == "console":
            yield from _session(match["text"], match.start("text"))


def _session(text: str, offset: int) -> Iterator[Typed]:
    starts = [found.start() for found in re.finditer(r"^\$ ", text, re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        command = re.match(r"\$ ((?:.*\\\n)*.*)\n?", text[start:end])
        assert command
        after = start + command.end()
        printed = tuple(line.rstrip() for line in text[after:end].splitlines())
        typed = command[1].replace("\\\n", " ").strip()
        yield Typed(typed, printed, offset + after, offset + end)


def run(typed: Typed, folder: Path) -> Finished:
    """Run a command as a user would, in `folder`, with a terminal of 80 columns.

    What `pip install -e` installs goes to a folder of its own, which later commands see. The pages
    show what is on stdout; progress and warnings go to stderr.
    """
    site = folder / ".site"
    words = shlex.split(typed.command, comments=True)
    variables = {"COLUMNS": "80", "PYTHONPATH": str(site)}
    if words[0] == "bench":  # tests leave the plugins of others out
        return forked(*words[1:], folder=folder, BENCH_LOAD_PLUGINS=None, **variables)
    environment = {**os.environ, **variables}
    environment.pop("BENCH_LOAD_PLUGINS", None)
    command = [sys.executable, "-m", *words]
    if words[:3] == ["pip", "install", "-e"]:
        command += ["-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
        command.remove("-e")
    elif words[0] == "python":
        command = [sys.executable, *words[1:]]
    elif words[0] not in {"pytest", "pip"}:
        command = ["sh", "-c", typed.command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return Finished(done.returncode, done.stdout, done.stderr)


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of every `bench` command in the blocks of a page."""
    found = []
    for match in FENCE.finditer(page.read_text("utf-8")):
        if match["kind"] not in {"sh", "console", "bash"}:
            continue
        for line in match["text"].replace("\\\n", " ").splitlines():
            typed = line.strip().removeprefix("$ ")
            if match["kind"] == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(typed, comments=True)
            while "bench" in words:
                words = words[words.index("bench") + 1 :]
                ends = [i for i, word in enumerate(words) if word in {"&&", "|", ">", ";"}]
                found.append(words[: min(ends, default=len(words))])
    return found


def unknown(arguments: list[str]) -> set[str]:
    """Return what of a `bench` command is not known: the command itself, or options."""
    command: click.Command | None = cli
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command = command.get_command(click.Context(cli), rest.pop(0))
    if command is None:
        return {arguments[0]}
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    options = {word.split("=")[0] for word in rest if word.startswith("--")}
    return options - known - {"--help", "--version"}


def same(shown: tuple[str, ...], printed: str) -> bool:
    """Return whether a session shows what was printed, apart from times, sizes and line breaks.

    Where a line breaks depends on how many digits a time has.
    """
    parts = plain("\n".join(shown)).split(ANYTHING)
    pattern = ".*".join(re.escape(part.strip()) for part in parts)
    return re.fullmatch(pattern, plain(printed)) is not None


def plain(text: str) -> str:
    """Return a text on one line, without colours and measured times."""
    return TIMES.sub("#", " ".join(COLOURS.sub("", text).split()))


def rewrite(page: Path) -> None:
    """Write what the commands of a page print into it; those that show `…` stay as they are."""
    text = page.read_text("utf-8")
    parts, last = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for step in steps(text):
            if isinstance(step, Written):
                (folder / step.name).parent.mkdir(parents=True, exist_ok=True)
                (folder / step.name).write_text(step.text, "utf-8")
                continue
            done = run(step, folder)
            printed = COLOURS.sub("", done.out)
            print(f"$ {step.command}\n{printed}", flush=True)
            if done.code:
                sys.exit(f"exit code {done.code}: {done.err}")
            if ANYTHING not in step.printed:
                lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
                parts += [text[last : step.start], *(f"{line}\n" for line in lines)]
                last = step.end
    page.write_text("".join([*parts, text[last:]]), "utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        rewrite(Path(argument))
