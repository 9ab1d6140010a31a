"""`bench explain`. Explain a term: draw, cell, ceiling, ...

Group: See what is there, 6.
"""

import re
from pathlib import Path
from typing import Annotated

from bench.cli.command import command, end_with_json
from bench.cli.output import say
from bench.errors import UserError, did_you_mean

_ROW = re.compile(r"^\| (?!word \|)(.+?) \| (.+) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_ITALIC = re.compile(r"\*([^*]+)\*")


@command()
def explain_command(word: Annotated[tuple[str, ...], {"metavar": "[WORD]…"}] = ()) -> None:
    """Explain each WORD as tables, help and documents use it; without WORD, list all words.

    The glossary of the documentation has the same text.
    """
    meanings = find_words(" ".join(word)) if word else glossary()
    end_with_json([{"word": name, "meaning": text} for name, text in meanings.items()])
    if word:
        for name, text in meanings.items():
            say(f"{name}: {text}")
        if unknown := unknown_words(" ".join(word)):
            say(f"Not in the glossary: {', '.join(unknown)}.", err=True)
    else:
        say(", ".join(meanings))
        say("\n`bench explain WORD` explains a word.")


def glossary(markup: bool = False) -> dict[str, str]:
    """Return the meaning of each word; `markup` keeps the emphasis of other names of a thing."""
    text = Path(__file__).with_name("glossary.md").read_text("utf-8")
    meanings = {name: _LINK.sub(r"\1", meaning) for name, meaning in _ROW.findall(text)}
    if markup:
        return meanings
    return {name: _ITALIC.sub(r"\1", meaning) for name, meaning in meanings.items()}


def find_words(text: str) -> dict[str, str]:
    """Return the words that `text` may mean, in singular or plural, and their meanings.

    If it is no entry, it is several words, and the meanings are those of each that is one. Raises
    UserError if there are none.
    """
    found = _entries(text)
    for word in _split(text) if not found else ():
        found |= _entries(word)
    if not found:
        raise UserError(
            f"{text!r} is not in the glossary.{did_you_mean(text, glossary())} `bench explain`"
            " lists all words, and `bench list strategies race` the parameters of a strategy."
        )
    return found


def unknown_words(text: str) -> list[str]:
    """Return those of several words that have no entry."""
    return [] if _entries(text) else [word for word in _split(text) if not _entries(word)]


def _entries(word: str) -> dict[str, str]:
    """Return a word's entry, else those that it is another name of, or a part of a name of."""
    wanted, meanings = _strip_plural(word), glossary()
    names = {name: [_strip_plural(name)] for name in meanings}
    for name, text in glossary(markup=True).items():
        names[name] += map(_strip_plural, _ITALIC.findall(text))
    exact = [name for name in meanings if names[name][0] == wanted]
    called = [name for name in meanings if wanted in names[name]]
    parts = [name for name in meanings if wanted in " ".join(names[name]).split()]
    return {name: meanings[name] for name in exact or called or parts}


def _split(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _strip_plural(word: str) -> str:
    return word.strip().lower().removesuffix("s")
