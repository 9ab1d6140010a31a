"""The English article before a class: "an airplane", "a one", "airplanes"."""

from __future__ import annotations

import re

_ARTICLE = r"\b([Aa])n?\s+(?=\{class\})"
_OWN_ARTICLE = re.compile(r"(an?|the)\s+", re.IGNORECASE)
# Letters and numbers that are spoken with a vowel first: an SUV, an 8, an 18-wheeler.
_SPOKEN = re.compile(r"[AEFHILMNORSX](?=[A-Z]+\b|-)|8|1[18](?!\d)")
_LETTERS = re.compile(r"[A-Z]{2,}\b|[A-Z]-")
_SILENT_H = re.compile(r"hour|honest|hono|heir", re.IGNORECASE)
# Vowels that are spoken as "you" or "won": a unicorn, a European, a ewer, a one.
_LIKE_CONSONANT = re.compile(
    r"one\b|once\b|eu|ewe|uni(?!n|m)|us[eu]|uk|ut[eio]|ur[aei]", re.IGNORECASE
)
_SINGULAR = re.compile(
    r"(ss|us|is|lens|gas|atlas|canvas|series|species|rhinoceros|albatros)$", re.IGNORECASE
)


def fill(template: str, phrase: str) -> str:
    """Return the toolkit's own template with `phrase` for `{class}` and the article it needs.

    Args:
        template: such as `a photo of a {class}`.
        phrase: a class; with an article of its own, it keeps that.
    """
    ends = re.search(r"\{class\}\s*($|[.,;:!?])", template) is not None
    if _OWN_ARTICLE.match(phrase) or (ends and is_plural(phrase)):
        template = re.sub(_ARTICLE, "", template)
    else:
        n = "n" if _vowel_first(phrase) else ""
        template = re.sub(_ARTICLE, rf"\1{n} ", template)
    return template.replace("{class}", phrase)


def fill_as_written(template: str, phrase: str) -> str:
    """Return the user's template with `phrase` for `{class}`, and not a word of it changed.

    Where the template has an article before `{class}`, the phrase does without its own.
    """
    if re.search(_ARTICLE + r"|\b[Tt]he\s+(?=\{class\})", template):
        phrase = _OWN_ARTICLE.sub("", phrase, count=1)
    return template.replace("{class}", phrase)


def is_plural(phrase: str) -> bool:
    """Tell whether a phrase reads as a plural: its noun, the last word before "of", ends in s."""
    noun = phrase.split(" of ")[0].split()[-1]
    return noun.endswith("s") and len(noun) > 3 and not _SINGULAR.search(noun)


def _vowel_first(phrase: str) -> bool:
    if _LETTERS.match(phrase) or phrase[0].isdigit():
        return _SPOKEN.match(phrase) is not None
    if _SILENT_H.match(phrase):
        return True
    return phrase[0].lower() in "aeiou" and not _LIKE_CONSONANT.match(phrase)
