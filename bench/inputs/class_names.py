"""Class names: the words that stand for a class in prompts and tables.

Names found in data (folders, text labels, `ClassLabel`) are converted to words. Names declared by a
dataset's author are used unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError, did_you_mean, quoted, some_of, warn_user
from bench.inputs.parsing import parse_json, read_csv_rows, read_lines, read_text_file, strip_text
from bench.machine.files import has_control

MAX_CLASS_LENGTH = 1000
_LEADING_NUMBER = re.compile(r"\s*\d+\s*[._-]\s*(?=[^\W\d])")  # 001.Black_footed_Albatross
_WORDNET_ID = re.compile(r"n\d{8}")
_REMEDY = "Give the classes in words with --class-names FILE."


@dataclass(frozen=True)
class ClassNames:
    """A dataset's classes in label order."""

    names: tuple[str, ...]  # in words, distinct
    spellings: tuple[str, ...]  # as the data or the dataset's author spells them

    @property
    def changes(self) -> list[tuple[str, str]]:
        """Pairs (spelling, name) of the classes whose names differ from their spellings."""
        return [pair for pair in zip(self.spellings, self.names, strict=True) if pair[0] != pair[1]]


def normalise_text(text: str) -> str:
    """Normalise case, white space and Unicode composition, to compare names or prompts."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def keep_alphanumeric(name: str) -> str:
    """Normalise a name as `normalise_text` does, and keep its letters and digits only."""
    return "".join(c for c in normalise_text(name) if c.isalnum())


def convert_to_words(spellings: Sequence[str]) -> tuple[str, ...]:
    """Convert names in data to words: `grand_piano` → `grand piano`.

    A leading number, as in `001.Black_footed_Albatross`, is dropped if every name has one and the
    names remain distinct, ignoring case.
    """
    bare = [name[match.end() :] for name in spellings if (match := _LEADING_NUMBER.match(name))]
    distinct = {normalise_text(_replace_underscores(name)) for name in bare}
    return tuple(map(_replace_underscores, bare if len(distinct) == len(spellings) else spellings))


def _replace_underscores(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split())


def name_classes(
    spellings: Sequence[str], where: str, declared: bool, file: Path | None = None
) -> ClassNames:
    """Return a dataset's class names in words; the names in the user's `file` take precedence.

    `declared` names were chosen as words by the author; others are converted. Warns if names from
    the data are WordNet ids or bare numbers. Raises UserError if the names are invalid (see
    `check_names`) or the file is (see `read_class_names`).
    """
    if file is not None:
        names, remedy = read_class_names(file, spellings), ""
    elif declared:
        names, remedy = tuple(spellings), ""
    else:
        names = convert_to_words(spellings)
        remedy = ", or name both with --class-names FILE"
    check_names(names, where, spellings, remedy)
    if file is None and not declared:
        _warn_of_codes(names, where)
    return ClassNames(names, tuple(spellings))


def check_names(
    names: Sequence[str], where: str, spellings: Sequence[str] | None = None, remedy: str = ""
) -> None:
    """Check that there are at least two classes, each with a valid name of its own.

    Raises UserError otherwise. A valid name has 1 to 1,000 characters and no control characters;
    names that differ only in case or white space count as equal. `spellings` are the names as the
    data or the author spells them, and `remedy` is advice about equal names, after "rename one".
    """
    if len(names) < 2:
        only = f" ({quoted(names[0])})" if names else ""
        raise UserError(
            f"{where} has {len(names)} class{'' if len(names) == 1 else 'es'}{only};"
            " classification requires at least two."
        )
    seen: dict[str, str] = {}
    for name, spelling in zip(names, spellings or names, strict=True):
        if not isinstance(name, str) or not normalise_text(name):
            raise UserError(f"{where}: the class {quoted(spelling)} has an empty name.")
        if len(name) > MAX_CLASS_LENGTH or has_control(name) or has_control(spelling):
            raise UserError(
                f"{where}: the name of the class {quoted(spelling)} must have at most"
                f" {MAX_CLASS_LENGTH} characters and no control characters."
            )
        key = normalise_text(name)
        if key in seen:
            raise UserError(
                f"{where}: the classes {quoted(seen[key])} and {quoted(spelling)} have the same"
                f" name in words, {quoted(name)}; rename one{remedy}."
            )
        seen[key] = spelling


def _warn_of_codes(names: Sequence[str], where: str) -> None:
    wordnet_ids = [name for name in names if _WORDNET_ID.fullmatch(name)]
    if wordnet_ids:
        codes = f"the class names include WordNet ids such as {wordnet_ids[0]}"
    elif all(name.isdecimal() for name in names):
        codes = f"the class names are bare numbers ({some_of(names)})"
    else:
        return
    warn_user(f"{where}: {codes}, which a text encoder cannot interpret. {_REMEDY}")


def read_class_names(file: Path, spellings: Sequence[str]) -> tuple[str, ...]:
    """Read the words for the classes from a file, and return them in label order.

    The file is a JSON object (name → words) or list, a CSV file with two columns (name, words), or
    a text file with one class per line: its words, or its name, a space and its words. Names that
    are not classes are ignored, so a CSV file may have a header but needs none. A list is in label
    order, but in the order of the numbers if all classes are numbers; these must be consecutive
    from 0 or 1.

    Raises UserError if the file cannot be read or does not match the classes.
    """
    content = parse_class_names(file, spellings)
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
            f"{file} lists {len(content)} class{'' if len(content) == 1 else 'es'}, but the data"
            f" has {len(spellings)}. Give a list in label order, or map each class to its words (a"
            " JSON object, or CSV)."
        )
    return tuple(content[position] for position in _list_positions(spellings))


def _list_positions(spellings: Sequence[str]) -> list[int]:
    """Return the position of each class in a list; numbers are ordered by value, not as text."""
    if not all(name.isdecimal() for name in spellings):
        return list(range(len(spellings)))
    numbers = [int(name) for name in spellings]
    first = min(numbers)
    if first > 1 or sorted(numbers) != list(range(first, first + len(spellings))):
        raise UserError(
            "--class-names: the classes are numbers that are not consecutive from 0 or 1, so the"
            " order of a list is ambiguous. Map each number to its words (a JSON object, or CSV)."
        )
    return [number - first for number in numbers]


def parse_class_names(file: Path, spellings: Collection[str]) -> Mapping[str, str] | list[str]:
    """Return the words of a file by class, or in its order; raises as `read_class_names`.

    `spellings` are the names in the data, by which a text file with names is recognised.
    """
    if file.suffix.lower() == ".json":
        try:
            return _check_strings(parse_json(read_text_file(file)), file)
        except ValueError as error:
            reason = str(error)[:200]
            raise UserError(f"--class-names: {file} cannot be read: {reason}.") from None
    if file.suffix.lower() == ".csv":
        table = read_csv_rows(read_text_file(file), str(file))
        return _parse_pairs([(f"{file}:{line}", row) for line, row in table])
    lines = read_lines(file, "class")
    rows = [(at, line.split(maxsplit=1)) for at, line in lines]
    names = set(spellings)
    if rows and all(len(row) == 2 and row[0] in names for _, row in rows):
        return _parse_pairs(rows)
    return [line for _, line in lines]


def _parse_pairs(rows: Iterable[tuple[str, Sequence[str]]]) -> dict[str, str]:
    words: dict[str, str] = {}
    for at, row in rows:
        if len(row) != 2:
            raise UserError(
                f"{at}: expected two columns, a class and its words; quote words with a comma."
            )
        name = strip_text(row[0], "class", at)
        if name in words:
            raise UserError(f"{at}: the class {quoted(name)} occurs twice.")
        words[name] = strip_text(row[1], "words", at)
    return words


def _check_strings(content: Any, file: Path) -> Mapping[str, str] | list[str]:
    values = content.values() if isinstance(content, dict) else content
    if not isinstance(content, dict | list) or not all(isinstance(v, str) for v in values):
        raise UserError(
            f'{file}: expected an object {{"name": "words", …}} or a list ["words", …].'
        )
    return content
