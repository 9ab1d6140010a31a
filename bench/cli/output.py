"""What the commands print: messages and JSON, whatever the names in them and the terminal are."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from bench.boards.text import message
from bench.errors import BenchWarning

if TYPE_CHECKING:
    from bench.store.documents import Manifest

KEPT = "bench.stdout"  # in a command's context: what writes to the stdout that is kept for JSON

MOST_IN_PICTURES = 300_000  # images; their records take a gigabyte


def say(text: object, err: bool = False) -> None:
    """Print a message on stdout, or on stderr, with the names in it made visible.

    On a terminal its lines break between words, except where they name a command: that can be
    copied as it stands.
    """
    shown = message(text)
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        shown = "\n".join(_broken(line, width) for line in shown.split("\n"))
    click.echo(shown, err=err)


def _broken(line: str, width: int) -> str:
    if "bench " in line:
        return line
    return "\n".join(wrap(line, width, break_long_words=False, break_on_hyphens=False)) or line


def next_steps(*steps: tuple[str, str]) -> None:
    """Print what a user may want to do next, as (what, command).

    A command that is too long for the line of its words gets a line of its own, so that it can
    be copied whole.
    """
    width = shutil.get_terminal_size().columns
    say("\nNext:")
    for what, command in steps:
        line = f"  {what}: {command}"
        say(line if len(line) <= width else f"  {what}:\n    {command}")


def after_run(name: str) -> list[tuple[str, str]]:
    """Return what a user may want to do with a complete run, as `run_name` calls it."""
    return [
        ("see the mistakes", f"bench report {name}"),
        ("see each class", f"bench show {name} --statistics"),
    ]


def run_name(folder: Path, results: str) -> str:
    """Return what a command calls a stored run: its id, or its folder where it lies elsewhere."""
    usual = results == "results" and folder.parent == Path(results)
    return folder.name if usual else shlex.quote(str(folder))


def results_option(results: str) -> str:
    """Return ` --results FOLDER` for a command; nothing where it looks in that folder anyway."""
    usual = os.environ.get("BENCH_RESULTS") or "results"
    return "" if results == usual else f" --results {shlex.quote(results)}"


def draw_pictures(run: Path, images: int, made: Manifest | None = None) -> None:
    """Draw the pictures that a run ends with; a warning says which cannot be drawn, and why.

    Args:
        run: the run's folder.
        images: how many it has decided.
        made: of a run that this process made, what it is; None: it was stored.
    """
    if images > MOST_IN_PICTURES:
        _warn(f"No pictures: {images:,} images are too many to hold at once.")
        return
    from bench.render.pictures import write_pictures

    try:
        written = write_pictures(run, made)
    except Exception as error:  # whatever it is, the run is complete all the same
        _warn(f"No pictures: {type(error).__name__}: {error}")
        return
    if len(written) < 2:
        _warn("No picture of examples: the images are not on this machine.")


def _warn(said: str) -> None:
    warnings.warn(said, BenchWarning, stacklevel=3)


def print_json(value: Any) -> None:
    """Print one JSON object, or list, on stdout; a number that JSON lacks becomes null."""
    try:
        text = _dump(value)
    except ValueError:
        text = _dump(_finite(value))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # None: a test's stream
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # half a surrogate pair, or a terminal of fewer characters
        text = json.dumps(json.loads(text), indent=1)
    context = click.get_current_context(silent=True)
    write = (context.meta.get(KEPT) if context else None) or click.echo
    write(text)


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
