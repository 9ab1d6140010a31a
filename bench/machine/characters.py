"""Characters that no name and no text of a prompt has."""

from __future__ import annotations

import unicodedata

LINES = "\t\n\r"  # control characters that texts of several lines have
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Cs: half of a pair, as in a name that was not UTF-8


def has_control(text: str, allowed: str = "") -> bool:
    """Tell whether a text has control characters, line or paragraph separators or lone surrogates.

    Args:
        text: any text.
        allowed: control characters that it may have.
    """
    return not text.isprintable() and any(
        unicodedata.category(character) in _CONTROL and character not in allowed
        for character in text
    )
