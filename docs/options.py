"""Generate the page of all options from the help of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from bench.cli.main import cli
from bench.cli.settings import WHOLE_HELP

KEPT = "\b"  # click does not rewrap a paragraph that begins with it


class Sections(click.HelpFormatter):
    """Collects the sections of `--help` as (title, rows) instead of formatting them as text."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[tuple[str, list[tuple[str, str]]]] = []

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Begin a section, to which the rows written in this context are added."""
        self.sections.append((name, []))
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: int, **__: int) -> None:
        """Add rows to the current section."""
        self.sections[-1][1].extend(rows)


def options() -> str:
    """Return Markdown with a chapter for every visible command."""
    context = cli.make_context("bench", [], resilient_parsing=True)
    context.meta[WHOLE_HELP] = True
    return "\n".join(_chapters(cli, context, depth=2))


def _chapters(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    path = context.command_path
    anchor = path.replace(" ", "-")
    yield f"{'#' * depth} {path} {{ #{anchor} data-toc-label='{context.info_name}' }}\n"
    yield from _description(command)
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{path} {pieces}\n```\n"
    formatter = Sections()
    command.format_options(context, formatter)
    for title, rows in formatter.sections:
        yield f"| {title} | |\n|---|---|"
        yield from (f"| `{first}` | {_cell(second)} |" for first, second in rows)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                child = click.Context(below, info_name=name, parent=context)
                yield from _chapters(below, child, depth + 1)


def _description(command: click.Command) -> Iterator[str]:
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = paragraph.startswith(KEPT)
        text = paragraph.removeprefix(KEPT).strip("\n")
        yield f"```text\n{text}\n```\n" if kept else f"{text}\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;")
