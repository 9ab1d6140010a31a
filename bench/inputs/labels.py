"""Validation of labels and sample ids before anything is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bench.errors import UserError, quoted
from bench.inputs.class_names import keep_alphanumeric
from bench.machine.files import is_utf8

LABEL_DIGITS = 18  # maximum of a numeric label; more may not fit into 64 bits
UNLABELLED = -1  # how `datasets` encodes a missing label
MAX_ID_LENGTH = 4096  # characters; the longest path possible


Labels = tuple[tuple[str, ...], tuple[int | None, ...]]


def read_labels(
    values: Sequence[object], feature: Any, declared: Sequence[str] | None, where: str
) -> Labels:
    """Return the classes in label order, and the class index of each image or None without a label.

    `feature` is the type of the column: a `datasets.ClassLabel`, or a `datasets.Value` of text or
    whole numbers. If no classes are `declared`, those in the data are used. Raises UserError if the
    labels have another type or do not match the declared classes.
    """
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
        if declared is not None:
            check_order(names, declared, where)
            names = tuple(declared)
        return names, _check_indices(values, names, where)
    dtype = str(getattr(feature, "dtype", feature))
    if isinstance(feature, datasets.Value) and dtype in ("string", "large_string"):
        return _read_texts(values, declared, where)
    if isinstance(feature, datasets.Value) and dtype.lstrip("u").startswith("int"):
        return _read_numbers(values, declared, where)
    if isinstance(feature, datasets.Value) and dtype == "null":
        return tuple(declared or ()), (None,) * len(values)
    raise UserError(
        f"{where}: the column 'label' holds {quoted(dtype)}; expected class names or whole numbers."
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
    declared_names = {keep_alphanumeric(name) for name in declared}
    for index, name in enumerate(in_data):
        if keep_alphanumeric(name) in declared_names - {keep_alphanumeric(declared[index])}:
            raise UserError(
                f"{where}: label {index} is {quoted(name)} in the data and"
                f" {quoted(declared[index])} in the declared classes; the order differs."
            )


def _check_indices(
    values: Sequence[object], names: Sequence[str], where: str
) -> tuple[int | None, ...]:
    for row, value in enumerate(values):
        if value is None or value == UNLABELLED:
            continue
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise UserError(
                f"{where}: image {row + 1} of {len(values)} has the label {quoted(value)}; the"
                f" {len(names)} classes are numbered 0 to {len(names) - 1}."
            )
    return tuple(
        value if isinstance(value, int) and value != UNLABELLED else None for value in values
    )


def _read_texts(values: Sequence[object], declared: Sequence[str] | None, where: str) -> Labels:
    texts = [value if isinstance(value, str) and value.strip() else None for value in values]
    names = tuple(declared) if declared else tuple(sorted({v for v in texts if v is not None}))
    index = {name: position for position, name in enumerate(names)}
    if declared:  # the author's spelling, or one that differs in case and punctuation only
        similar = {keep_alphanumeric(name): position for position, name in enumerate(names)}
        index = {
            v: index.get(v, similar.get(keep_alphanumeric(v), -1)) for v in texts if v is not None
        }
        unknown = next((v for v, position in index.items() if position < 0), None)
        if unknown is not None:
            raise UserError(f"{where}: the label {quoted(unknown)} is not one of its classes.")
    return names, tuple(None if v is None else index[v] for v in texts)


def _read_numbers(values: Sequence[object], declared: Sequence[str] | None, where: str) -> Labels:
    if declared is not None:
        return tuple(declared), _check_indices(values, declared, where)
    numbers = {v for v in values if isinstance(v, int) and v != UNLABELLED}
    if any(number < 0 for number in numbers):
        raise UserError(f"{where}: the label {min(numbers)} is negative.")
    order = {number: position for position, number in enumerate(sorted(numbers))}
    indices = tuple(order.get(v) if isinstance(v, int) else None for v in values)
    return tuple(map(str, order)), indices


def parse_numbers(labels: Sequence[str], at: Sequence[str]) -> list[int] | None:
    """Return labels as integers, or None if any of them is not a whole number; -1 if empty.

    `at` has the places of the labels in messages. Raises UserError if a number exceeds 64 bits.
    """
    if not all(label == "" or label.removeprefix("-").isdecimal() for label in labels):
        return None
    for label, place in zip(labels, at, strict=True):
        if len(label) > LABEL_DIGITS:
            raise UserError(f"{place}: the label {quoted(label)} is too large.")
    return [int(label or UNLABELLED) for label in labels]


def check_ids(ids: Sequence[object], where: str) -> tuple[str, ...]:
    """Validate sample ids and return them.

    Raises UserError if an id is not UTF-8 text of 1 to 4,096 characters, or occurs twice.
    """
    for row, sample_id in enumerate(ids):
        if not isinstance(sample_id, str):
            raise UserError(
                f"{where}: the sample_id of image {row + 1} is {quoted(sample_id)}; expected text."
            )
        if not sample_id.strip() or len(sample_id) > MAX_ID_LENGTH or not is_utf8(sample_id):
            raise UserError(
                f"{where}: the sample_id of image {row + 1} must be 1 to {MAX_ID_LENGTH} characters"
                f" of UTF-8, got {quoted(sample_id)}."
            )
    names = [str(sample_id) for sample_id in ids]
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise UserError(
            f"{where}: the sample_id {quoted(repeated)} occurs several times; ids must be unique."
        )
    return tuple(names)


def make_unique(ids: Iterable[str]) -> list[str]:
    """Make ids unique with suffixes: x, x-2, x-3. Identical images have identical ids."""
    seen: Counter[str] = Counter()
    unique = []
    for sample_id in ids:
        seen[sample_id] += 1
        count = seen[sample_id]
        unique.append(sample_id if count == 1 else f"{sample_id}-{count}")
    return unique
