"""Class names, the words that stand for a class in prompts and tables, and labels, their indices.

Names found in data (folders, text labels, `ClassLabel`) are converted to words. Names declared by a
dataset's author are used unchanged. Labels become indices, or are refused, before scoring.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Rows
from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean, quoted, some_of, warn_user
from bench.inputs.parsing import (
    parse_json,
    read_csv_rows,
    read_lines,
    read_text_file,
    split_names,
    strip_text,
)
from bench.inputs.rows import UNLABELLED, read_column
from bench.machine.files import has_control
from bench.machine.libraries import datasets

MAX_CLASS_LENGTH = 1000
_LEADING_NUMBER = re.compile(r"\s*\d+\s*[._-]\s*(?=[^\W\d])")  # 001.Black_footed_Albatross
_NUMBER = re.compile(r"-?\d+(\.0*)?")  # pandas writes whole numbers beside missing ones as 3.0
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
    text = normalise_text(name)
    if not any(map(str.isalpha, text)):  # -1 is not 1, and 1.0 is not 10
        return re.sub(r"(?<=\d)[\W_]+(?=\d)", " ", text)
    return "".join(filter(str.isalnum, text))


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
    spellings: Sequence[str], where: str, *, declared: bool, file: Path | None = None
) -> ClassNames:
    """Return a dataset's class names in words; the names in the user's `file` take precedence.

    `declared` names were chosen as words by the author; others are converted. Warns if names from
    the data are WordNet ids or bare numbers. Raises UserError if the names are invalid (see
    `check_names`) or the file is (see `read_class_names`).
    """
    names = tuple(spellings) if declared else convert_to_words(spellings)
    if file is not None:
        names = read_class_names(file, spellings)
    if file is not None or declared:
        check_names(names, where, spellings)
    else:
        check_names(names, where, spellings, ", or name both with --class-names FILE")
        _warn_of_codes(names, where)
    return ClassNames(names, tuple(spellings))


def list_classes(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names in a list, or in a text such as "cat,dog" (UserError, as `check_names`)."""
    names = tuple(split_names(classes) if isinstance(classes, str) else classes)
    check_names(names, f"The list of classes {quoted(classes)}")
    return names


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
            " classification requires at least two. Add another one, such as `other`."
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
    elif all(map(_NUMBER.fullmatch, names)):
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
        position_of = find_positions(spellings, [*enumerate(content)])
        if missing := [name for name in spellings if position_of[name] == OTHER]:
            raise UserError(
                f"{file}: no words for the class {quoted(missing[0])}"
                f" ({len(missing)} of {len(spellings)} are missing)."
                f"{did_you_mean(missing[0], content)}"
            )
        words = [*content.values()]
        return tuple(words[position_of[name]] for name in spellings)
    if len(content) != len(spellings):
        raise UserError(
            f"{file} lists {len(content)} class{'' if len(content) == 1 else 'es'}, but the data"
            f" has {len(spellings)}. Give a list in label order, or map each class to its words (a"
            " JSON object, or CSV)."
        )
    return tuple(content[position] for position in _list_positions(spellings))


def _list_positions(spellings: Sequence[str]) -> list[int]:
    """Return the position of each class in a list; numbers are ordered by value, not as text."""
    if not all(map(_NUMBER.fullmatch, spellings)):
        return list(range(len(spellings)))
    numbers = [int(name.partition(".")[0]) for name in spellings]
    first = min(numbers)
    if first not in (0, 1) or sorted(numbers) != list(range(first, first + len(spellings))):
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
            content: Any = parse_json(read_text_file(file))
        except ValueError as error:
            reason = str(error)[:200]
            raise UserError(f"--class-names: {file} cannot be read: {reason}.") from None
        texts = content.values() if isinstance(content, dict) else content
        if not isinstance(content, dict | list) or not all(isinstance(t, str) for t in texts):
            raise UserError(
                f'{file}: expected an object {{"name": "words", …}} or a list ["words", …].'
            )
        return content
    if file.suffix.lower() == ".csv":
        table = read_csv_rows(read_text_file(file), str(file))
        return _parse_pairs([(f"{file}:{line}", row) for line, row in table])
    lines = read_lines(file, "class")
    rows = [(at, line.split(maxsplit=1)) for at, line in lines]
    names = set(map(normalise_text, spellings))
    others = [at for at, row in rows if len(row) < 2 or normalise_text(row[0]) not in names]
    if rows and not others:
        return _parse_pairs(rows)
    if 2 * len(others) < len(rows):  # a slip, since most lines begin with a name
        raise UserError(
            f"{others[0]}: expected a class and its words, as in most lines. Words alone that begin"
            " like classes need a JSON list."
        )
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


OTHER = -2  # index of an undeclared class
_FORMS = (str, normalise_text, keep_alphanumeric)  # in which names are compared, in this order
Labels = tuple[tuple[str, ...], tuple[int | None, ...]]


def read_labels(
    values: Sequence[object], feature: Any, declared: Sequence[str] | None, where: str
) -> Labels:
    """Return the classes in label order, and the class index of each image or None without a label.

    `feature` is the type of the column: a `datasets.ClassLabel`, or a `datasets.Value` of text,
    whole numbers or truth values. If no classes are `declared`, those in the data are used. Raises
    UserError if the labels have another type or do not match the declared classes.
    """
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        if declared is not None:
            check_order(names, declared, where)
            names = tuple(declared)
        return names, _check_indices(values, names, where)
    dtype = str(getattr(feature, "dtype", feature))
    kind = dtype.lstrip("u") if isinstance(feature, datasets.Value) else ""
    if kind in ("string", "large_string", "null"):
        return _read_texts(values, declared, where)
    if kind == "bool":  # false is class 0
        values = [None if value is None else int(value is True) for value in values]
    if kind == "bool" or kind.startswith("int"):
        return _read_numbers(values, declared, where)
    raise UserError(
        f"{where}: the column 'label' holds {quoted(dtype)}; expected class names, whole numbers or"
        " truth values."
    )


def check_order(in_data: Sequence[str], declared: Sequence[str], where: str) -> None:
    """Check that a `ClassLabel` numbers the classes as the declared list does.

    Spellings may differ ("3" and "three"). Raises UserError if the lists differ in length, or a
    declared name has another index in the data.
    """
    if len(in_data) != len(declared):
        raise UserError(
            f"{where}: the data has {len(in_data)} classes, but {len(declared)} are declared."
        )
    position_of = find_positions(in_data, [*enumerate(declared)])
    for index, name in enumerate(in_data):
        if position_of[name] not in (OTHER, index):
            raise UserError(
                f"{where}: label {index} is {quoted(name)} in the data and"
                f" {quoted(declared[index])} in the declared classes; the order differs."
            )


def _check_indices(
    values: Sequence[Any], names: Sequence[str], where: str
) -> tuple[int | None, ...]:
    indices = [None if value == UNLABELLED else value for value in values]
    for row, value in enumerate(indices):
        if value is not None and not (isinstance(value, int) and 0 <= value < len(names)):
            raise UserError(
                f"{where}: image {row + 1} of {len(values)} has the label {quoted(value)}; the"
                f" {len(names)} classes are numbered 0 to {len(names) - 1}."
            )
    return tuple(indices)


def _read_texts(values: Sequence[object], declared: Sequence[str] | None, where: str) -> Labels:
    texts = [value if isinstance(value, str) and value.strip() else None for value in values]
    names = tuple(declared) if declared else tuple(sorted({v for v in texts if v is not None}))
    position_of = find_positions({v for v in texts if v is not None}, [*enumerate(names)])
    if unknown := [v for v, position in position_of.items() if position == OTHER]:
        raise UserError(f"{where}: the label {quoted(unknown[0])} is not one of its classes.")
    return names, tuple(None if v is None else position_of[v] for v in texts)


def find_positions(names: Iterable[str], spelt: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Return each name's position in `spelt`: (position, name), or `OTHER`.

    Names are compared exactly, else without case and spaces, else by letters and digits. A
    comparison by which names of two positions are equal, such as C and C++, decides nothing.
    """
    position_of: dict[tuple[object, str], int] = {}
    for form in _FORMS:
        for position, name in spelt:
            first = position_of.setdefault((form, form(name)), position)
            if first != position and form is not str:
                position_of[form, form(name)] = OTHER

    def find(name: str) -> int:
        positions = (position_of.get((form, form(name)), OTHER) for form in _FORMS)
        return next((position for position in positions if position != OTHER), OTHER)

    return {name: find(name) for name in names}


def _read_numbers(values: Sequence[object], declared: Sequence[str] | None, where: str) -> Labels:
    if declared is not None:
        return tuple(declared), _check_indices(values, declared, where)
    numbers = {v for v in values if isinstance(v, int) and v != UNLABELLED}
    if any(number < 0 for number in numbers):
        raise UserError(f"{where}: the label {min(numbers)} is negative.")
    order = {number: position for position, number in enumerate(sorted(numbers))}
    indices = tuple(order.get(v) if isinstance(v, int) else None for v in values)
    return tuple(map(str, order)), indices


def match_classes(rows: Rows, spec: DatasetSpec, where: str) -> list[int | None] | None:
    """Return the index of the declared class of each row's label, by name and never by position.

    The index is None for a missing label, and `OTHER` for an undeclared class (`leave_out_others`).
    Returns None if no classes are declared or labels are numbers, which are indices. Raises
    UserError if the data has another class, or no image is left.
    """
    if spec.classes is None:
        return None
    values, feature = read_column(rows, "label"), rows.features["label"]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        values = [None if n is None else names[n] for n in _check_indices(values, names, where)]
    elif feature == datasets.Value("string"):
        names = sorted({v for v in values if v is not None and v.strip()})
    else:
        return None
    index_of = dict(zip(names, find_indices(names, spec, where), strict=True))
    matched = [index_of.get(v) for v in values]
    if all(position == OTHER for position in matched):
        raise UserError(f"{where}: no image belongs to a class of dataset {spec.name!r}.")
    return matched


def find_indices(names: Sequence[str], spec: DatasetSpec, where: str) -> list[int]:
    """Return the index of the declared class for each class name of the data.

    Names are compared with `found` and `classes` of the declaration, exactly or by letters and
    digits alone. If all names are numbers, and not all of them are declared names, they are indices
    from 0 or 1. With `leave_out_others`, the index of an undeclared class is `OTHER`; otherwise
    UserError is raised.
    """
    classes = spec.classes or ()
    position_of = find_positions(names, [*enumerate(spec.found), *enumerate(classes)])
    others = [name for name in names if position_of[name] == OTHER]
    if others and all(name.isdecimal() for name in names):
        return _shift_numbers([int(name) for name in names], len(classes), where)
    positions = [position_of[name] for name in names]
    if spec.leave_out_others:
        return positions
    if others == list(names):
        raise UserError(
            f"{where} does not hold dataset {spec.name!r}, which has {len(classes)} classes:"
            f" {some_of(map(quoted, classes))}. None of its own classes is one of them:"
            f" {some_of(map(quoted, others))}."
        )
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UserError(
            f"{where}: the class {quoted(others[0])}{more} is not one of the {len(classes)}"
            f" classes of dataset {spec.name!r}.{did_you_mean(others[0], [*spec.found, *classes])}"
        )
    return positions


def _shift_numbers(numbers: Sequence[int], n_classes: int, where: str) -> list[int]:
    if 0 in numbers and max(numbers) < n_classes:
        return list(numbers)
    if min(numbers) > 0 and max(numbers) == n_classes:
        return [number - 1 for number in numbers]
    raise UserError(
        f"{where}: the classes are the numbers {min(numbers)} to {max(numbers)}; expected 0 to"
        f" {n_classes - 1} or 1 to {n_classes}, for the {n_classes} declared classes."
    )
