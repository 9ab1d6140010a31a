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
    """Return word → meaning; with `markup`, the synonyms in a meaning stay between asterisks."""
    text = Path(__file__).with_name("glossary.md").read_text("utf-8")
    meanings = {name: _LINK.sub(r"\1", meaning) for name, meaning in _ROW.findall(text)}
    if markup:
        return meanings
    return {name: _ITALIC.sub(r"\1", meaning) for name, meaning in meanings.items()}


def find_words(text: str) -> dict[str, str]:
    """Return word → meaning of the entries for `text`, in singular or plural.

    If there are none for the whole text, they are those of its words. UserError if no word has any.
    """
    entries = _entries(text)
    for word in [] if entries else text.replace(",", " ").split():
        entries |= _entries(word)
    if not entries:
        raise UserError(
            f"{text!r} is not in the glossary.{did_you_mean(text, glossary())} `bench explain`"
            " lists all words, and `bench list strategies race` the parameters of a strategy."
        )
    return entries


def unknown_words(text: str) -> list[str]:
    """Return the words of `text` that have no entry; none if the whole text has one."""
    words = [] if _entries(text) else text.replace(",", " ").split()
    return [word for word in words if not _entries(word)]


def _entries(word: str) -> dict[str, str]:
    """Return the entry named `word`, else those with this synonym, else those with it in a name."""
    wanted, meanings = _strip_plural(word), glossary()
    names = {name: [_strip_plural(name)] for name in meanings}
    for name, text in glossary(markup=True).items():
        names[name] += map(_strip_plural, _ITALIC.findall(text))
    named = [name for name in meanings if names[name][0] == wanted]
    with_synonym = [name for name in meanings if wanted in names[name]]
    with_part = [name for name in meanings if wanted in " ".join(names[name]).split()]
    return {name: meanings[name] for name in named or with_synonym or with_part}


def _strip_plural(word: str) -> str:
    return word.strip().lower().removesuffix("s")
