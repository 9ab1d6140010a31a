"""Class names: the words that stand for a class in prompts and tables.

Names found in data (folders, text labels, `ClassLabel`) are converted to words. Names declared by a
dataset's author are used unchanged.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from bench.errors import UserError, did_you_mean, quoted, some_of, warn_user
from bench.inputs.parsing import parse_json, read_text_file
from bench.machine.files import has_control

MAX_CLASS_LENGTH = 1000
_NUMBERED = re.compile(r"\d+\s*[._-]\s*(?=[^\W\d])")  # 001.Black_footed_Albatross
_WORDNET_ID = re.compile(r"n\d{8}")
_REMEDY = "Give the classes in words with --class-names FILE."


@dataclass(frozen=True)
class ClassNames:
    """A dataset's classes in label order."""

    names: tuple[str, ...]  # in words, distinct
    found: tuple[str, ...]  # as the data or the dataset's author spells them

    @property
    def changed(self) -> list[tuple[str, str]]:
        """Pairs (spelling in the data, name) of the classes whose names were changed."""
        return [pair for pair in zip(self.found, self.names, strict=True) if pair[0] != pair[1]]


def comparable(text: str) -> str:
    """Normalise case, white space and Unicode composition, to compare names or prompts."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def letters(name: str) -> str:
    """Return only the letters and digits of a name, without case."""
    return "".join(c for c in comparable(name) if c.isalnum())


def readable(spellings: Sequence[str]) -> tuple[str, ...]:
    """Convert names found in data to words: `grand_piano` → `grand piano`.

    A leading number, as in `001.Black_footed_Albatross`, is dropped if every name has one and the
    names remain distinct.
    """
    bare = [_NUMBERED.sub("", name, count=1) for name in spellings]
    if any(name == short for name, short in zip(spellings, bare, strict=True)) or (
        len(set(map(_words, bare))) < len(set(spellings))
    ):
        bare = list(spellings)
    return tuple(map(_words, bare))


def _words(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split())


def name_classes(
    spellings: Sequence[str], where: str, declared: bool, file: Path | None = None
) -> ClassNames:
    """Return a dataset's class names in words; warn about those a text encoder cannot interpret.

    Args:
        spellings: names in the data or from the author, in label order.
        where: name of the dataset in messages.
        declared: whether the author chose the names as words; otherwise they are converted.
        file: the user's file of names, which takes precedence.

    Raises:
        UserError: the names are not valid, see `check_names`, or the file is not.
    """
    names = tuple(spellings) if declared else readable(spellings)
    if file is not None:
        names = read_class_names(file, spellings)
    check_names(names, where, None if declared else spellings)
    if file is None and not declared:
        _warn_of_codes(names, where)
    return ClassNames(names, tuple(spellings))


def check_names(names: Sequence[str], where: str, spellings: Sequence[str] | None = None) -> None:
    """Check that class names can be told apart in prompts.

    Args:
        names: the names in words.
        where: name of the dataset in messages.
        spellings: the names as the data spells them; None if author or user chose them.

    Raises:
        UserError: there are fewer than two, or one is empty, too long, has control characters or
            occurs twice.
    """
    if len(names) < 2:
        only = f" ({quoted(names[0])})" if names else ""
        raise UserError(
            f"{where} has {len(names)} class{'' if len(names) == 1 else 'es'}{only}; to tell"
            " images apart takes at least two."
        )
    remedy = "" if spellings is None else ", or name both with --class-names FILE"
    seen: dict[str, str] = {}
    for name, spelt in zip(names, spellings or names, strict=True):
        if not isinstance(name, str) or not comparable(name):
            raise UserError(f"{where}: the class {quoted(spelt)} has no name in words.")
        if len(name) > MAX_CLASS_LENGTH or has_control(name) or has_control(spelt):
            raise UserError(
                f"{where}: the class {quoted(spelt)} is not a name; expected at most"
                f" {MAX_CLASS_LENGTH} characters, none of them control characters."
            )
        key = comparable(name)
        if key in seen:
            raise UserError(
                f"{where}: the classes {quoted(seen[key])} and {quoted(spelt)} have the same name"
                f" in words, {quoted(name)}; rename one{remedy}."
            )
        seen[key] = spelt


def _warn_of_codes(names: Sequence[str], where: str) -> None:
    if any(_WORDNET_ID.fullmatch(name) for name in names):
        kind = f"WordNet ids such as {names[0]}"
    elif all(name.isdecimal() for name in names):
        kind = f"bare numbers ({some_of(names)})"
    else:
        return
    warn_user(f"{where}: the classes are {kind}, which a text encoder cannot interpret. {_REMEDY}")


def read_class_names(file: Path, spellings: Sequence[str]) -> tuple[str, ...]:
    """Read the words for the classes from a file, and return them in label order.

    The file is a JSON object (name → words) or list, a CSV file with two columns (name, words), or
    a text file with one class per line: its words, or its name, a space and its words. A list is in
    label order; if the classes are consecutive numbers from 0 or 1, it is in the order of the
    numbers.

    Raises:
        UserError: the file cannot be read, or does not match the classes.
    """
    content = _read(file, spellings)
    if isinstance(content, Mapping):
        missing = [name for name in spellings if name not in content]
        if missing:
            raise UserError(
                f"{file}: no words for the class {quoted(missing[0])}"
                f" ({len(missing)} of {len(spellings)} are missing)."
                f"{did_you_mean(missing[0], content)}"
            )
        return tuple(content[name] for name in spellings)
    if len(content) != len(spellings):
        raise UserError(
            f"{file} lists {len(content)} classes, and the data has {len(spellings)}. Give a list"
            " in label order, or map each class to its words (a JSON object, or CSV)."
        )
    return tuple(content[position] for position in _positions(spellings))


def listed(file: Path) -> int | None:
    """Return how many classes a file lists, or None if it maps names to words."""
    content = _read(file, ())
    return None if isinstance(content, Mapping) else len(content)


def _positions(spellings: Sequence[str]) -> list[int]:
    """Return the position of each class in a list; numbers are ordered by value, not as text."""
    if not all(name.isdecimal() for name in spellings):
        return list(range(len(spellings)))
    numbers = [int(name) for name in spellings]
    first = min(numbers)
    if first > 1 or sorted(numbers) != list(range(first, first + len(spellings))):
        raise UserError(
            "--class-names: the classes are numbers with gaps, so a list may mean other classes."
            " Map each number to its words (a JSON object, or CSV)."
        )
    return [number - first for number in numbers]


def _read(file: Path, spellings: Sequence[str]) -> Mapping[str, str] | list[str]:
    text = read_text_file(file)
    try:
        if file.suffix.lower() == ".json":
            return _strings(parse_json(text), file)
        if file.suffix.lower() == ".csv":
            return _pairs(list(csv.reader(StringIO(text, newline=""))), file)
    except (ValueError, csv.Error) as error:
        raise UserError(f"--class-names: {file} cannot be read: {str(error)[:200]}.") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = set(spellings)
    if lines and all(line.split(maxsplit=1)[0] in names and " " in line for line in lines):
        return _pairs([line.split(maxsplit=1) for line in lines], file)
    return lines


def _pairs(rows: Sequence[Sequence[str]], file: Path) -> dict[str, str]:
    words: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        if len(row) != 2:
            raise UserError(f"{file}:{number}: expected two columns, a class and its words.")
        name = row[0].strip()
        if name in words:
            raise UserError(f"{file}:{number}: the class {quoted(name)} occurs twice.")
        words[name] = row[1].strip()
    return words


def _strings(content: Any, file: Path) -> Mapping[str, str] | list[str]:
    values = content.values() if isinstance(content, dict) else content
    if not isinstance(content, dict | list) or not all(isinstance(v, str) for v in values):
        raise UserError(
            f'{file}: expected an object {{"name": "words", …}} or a list ["words", …].'
        )
    return content
