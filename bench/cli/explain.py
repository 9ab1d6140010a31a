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
    unknown: list[str] = []
    meanings = find_words(" ".join(word), unknown) if word else glossary()
    end_with_json([{"word": name, "meaning": text} for name, text in meanings.items()])
    if word:
        for name, text in meanings.items():
            say(f"{name}: {text}")
        if unknown:
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


def find_words(word: str, unknown: list[str] | None = None) -> dict[str, str]:
    """Return the words that `word` may mean, in singular or plural, and their meanings.

    Returns the word itself if it has an entry, otherwise the entries of which it is another name,
    otherwise those whose names contain it; and of several words that are no name together, what
    each of them may mean; those without an entry are added to `unknown`. Raises UserError if there
    are none.
    """
    wanted, meanings = _strip_plural(word), glossary()
    names = {name: [_strip_plural(name)] for name in meanings}
    for name, text in glossary(markup=True).items():
        names[name] += map(_strip_plural, _ITALIC.findall(text))
    exact = [name for name in meanings if names[name][0] == wanted]
    called = [name for name in meanings if wanted in names[name]]
    parts = [name for name in meanings if wanted in " ".join(names[name]).split()]
    if chosen := exact or called or parts:
        return {name: meanings[name] for name in chosen}
    found: dict[str, str] = {}
    words = word.replace(",", " ").split()
    for part in words if len(words) > 1 else ():
        try:
            found |= find_words(part)
        except UserError:
            (unknown if unknown is not None else []).append(part)
    if found:
        return found
    raise UserError(
        f"{word!r} is not in the glossary.{did_you_mean(word, meanings)} `bench explain` lists all"
        " words, and `bench list strategies race` the parameters of a strategy."
    )


def _strip_plural(word: str) -> str:
    return word.strip().lower().removesuffix("s")
