"""Labels of images become indices of classes, or are refused, before anything is scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean, quoted, some_of
from bench.inputs.class_names import keep_alphanumeric
from bench.inputs.rows import UNLABELLED, read_column

if TYPE_CHECKING:
    import datasets

OTHER = -2  # index of an undeclared class


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
    position_of = _find_positions({v for v in texts if v is not None}, [*enumerate(names)])
    unknown = next((v for v, position in position_of.items() if position == OTHER), None)
    if unknown is not None:
        raise UserError(f"{where}: the label {quoted(unknown)} is not one of its classes.")
    return names, tuple(None if v is None else position_of[v] for v in texts)


def _find_positions(names: Iterable[str], spelt: Sequence[tuple[int, str]]) -> dict[str, int]:
    """Return the position of each name among those `spelt`, or `OTHER`.

    They are equal, or differ only in case and punctuation.
    """
    position_of: dict[str, int] = {}
    for key in (str, keep_alphanumeric):
        for position, name in spelt:
            position_of.setdefault(key(name), position)
    return {
        name: position_of.get(name, position_of.get(keep_alphanumeric(name), OTHER))
        for name in names
    }


def _read_numbers(values: Sequence[object], declared: Sequence[str] | None, where: str) -> Labels:
    if declared is not None:
        return tuple(declared), _check_indices(values, declared, where)
    numbers = {v for v in values if isinstance(v, int) and v != UNLABELLED}
    if any(number < 0 for number in numbers):
        raise UserError(f"{where}: the label {min(numbers)} is negative.")
    order = {number: position for position, number in enumerate(sorted(numbers))}
    indices = tuple(order.get(v) if isinstance(v, int) else None for v in values)
    return tuple(map(str, order)), indices


def match_classes(rows: datasets.Dataset, spec: DatasetSpec, where: str) -> list[int | None] | None:
    """Return the index of the declared class of each row's label, by name and never by position.

    It is None of a missing label, and `OTHER` of an undeclared class with `leave_out_others`.
    Returns None if no classes are declared or labels are numbers, which are indices. Raises
    UserError if the data has another class, or no image is left.
    """
    import datasets

    if spec.classes is None:
        return None
    values, feature = read_column(rows, "label"), rows.features["label"]
    if isinstance(feature, datasets.ClassLabel):
        index: Sequence[int] = find_indices(feature.names, spec, where)
        numbers = _check_indices(values, feature.names, where)
        matched = [None if number is None else index[number] for number in numbers]
    elif feature == datasets.Value("string"):
        names = sorted({v for v in values if v is not None and v.strip()})
        of = dict(zip(names, find_indices(names, spec, where), strict=True))
        matched = [of.get(v) for v in values]
    else:
        return None
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
    position_of = _find_positions(names, [*enumerate(spec.found), *enumerate(classes)])
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
    if n_classes in numbers and min(numbers) > 0 and max(numbers) == n_classes:
        return [number - 1 for number in numbers]
    raise UserError(
        f"{where}: the classes are the numbers {min(numbers)} to {max(numbers)}; expected 0 to"
        f" {n_classes - 1} or 1 to {n_classes}, for the {n_classes} declared classes."
    )
