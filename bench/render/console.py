"""The terminal: what is printed on it is text, whoever named it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from bench.boards.text import message


class PlainConsole(Console):
    """A console that shows every string as it is: no markup, no emoji codes, no control codes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the string as rich's text; rich calls this for all that it prints."""
        return super().render_str(message(text), **options)


def console(stderr: bool = False) -> PlainConsole:
    """Return a console on today's stdout, or stderr."""
    return PlainConsole(stderr=stderr)
