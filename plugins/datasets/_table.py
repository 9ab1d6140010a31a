"""A folder of images and a CSV file that names them with their labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import datasets

from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.class_names import comparable, readable
from bench.inputs.files import inside, open_regular
from bench_plugins.datasets._listing import LeftOut, find_images, plural

METADATA = "metadata.csv"
IMAGE_COLUMNS = ("file_name", "filename", "image", "file", "path")  # in order of preference
LABEL_COLUMNS = ("label", "class")

Rows = list[tuple[int, str, str]]  # line, file, label


def has_labels(table: Path, image: str | None, label: str | None) -> bool:
    """Tell whether there is such a file, and it says labels, not only captions or boxes.

    Raises:
        UserError: it cannot be read, or lacks a column that the user names.
    """
    if not table.is_file():
        return False
    head, _ = _read(table)
    loose = any(path.parent == table.parent for path in find_images(table.parent, LeftOut()))
    return loose or label is not None or any(name in head for name in LABEL_COLUMNS)


def load_table(
    folder: Path,
    table: Path,
    split: str,
    image_column: str | None = None,
    label_column: str | None = None,
) -> datasets.Dataset:
    """Return the images that a CSV file names, with the labels that it gives them.

    Args:
        folder: where the images lie, and the names lead from.
        table: the CSV file; its first line names the columns.
        split: what to call the result.
        image_column: the column of the files' names; None: the first of `IMAGE_COLUMNS`.
        label_column: the column of the labels; None: the first of `LABEL_COLUMNS`.

    Raises:
        UserError: the file cannot be read, lacks a column, names an image that is not there or
            one twice, or contradicts the folders that the images lie in.
    """
    rows = read_rows(table, image_column, label_column)
    names = [_name(folder, table, row) for row in rows]
    first: dict[str, int] = {}
    for name, (line, _, _) in zip(names, rows, strict=True):
        if first.setdefault(name, line) != line:
            raise UserError(f"{table}:{line}: {quoted(name)} stands in line {first[name]} already.")
    _check_folders(names, rows, table)
    left_out = LeftOut()
    images = find_images(folder, left_out)
    left_out.types.pop(table.suffix.lower(), None)
    unnamed = sum(path.relative_to(folder).as_posix() not in first for path in images)
    if unnamed:
        left_out.others.append(f"{plural(unnamed, 'image')} that {table.name} does not name")
    left_out.tell(folder)
    labels: Sequence[str | int] = [label for _, _, label in rows]
    kind = "string"
    if all(label == "" or label.removeprefix("-").isdecimal() for _, _, label in rows):
        labels, kind = [int(label or -1) for _, _, label in rows], "int64"
    return datasets.Dataset.from_dict(
        {"image": [str(folder / name) for name in names], "label": labels, "sample_id": names},
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.Value(kind),
                "sample_id": datasets.Value("string"),
            }
        ),
        split=split,
    )


def read_rows(table: Path, image: str | None, label: str | None) -> Rows:
    """Return line number, file name and label of each line.

    Raises:
        UserError: as `load_table`.
    """
    head, lines = _read(table)
    image = _column(table, head, image, IMAGE_COLUMNS, "--image-column")
    label = _column(table, head, label, LABEL_COLUMNS, "--label-column")
    rows = []
    for line, values in lines:
        if len(values) != len(head):
            raise UserError(
                f"{table}:{line}: {len(values)} columns, and the first line names {len(head)}."
            )
        row = dict(zip(head, values, strict=True))
        if not row[image].strip():
            raise UserError(f"{table}:{line}: the column {image!r} names no file.")
        rows.append((line, row[image].strip(), row[label].strip()))
    if not rows:
        raise UserError(f"{table} names no images.")
    return rows


def _read(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the other lines with their numbers."""
    try:
        with open_regular(table) as file:
            text = file.read().decode("utf-8-sig")
        reader = csv.reader(text.splitlines(), strict=True)
        head = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, values) for values in reader if values]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table} is not a CSV file in UTF-8: {error}.") from None
    twice = next((name for name in head if head.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{table}:1: the column {quoted(twice)} occurs twice.")
    return head, lines


def _column(
    table: Path, head: Sequence[str], given: str | None, known: Sequence[str], option: str
) -> str:
    if given is not None:
        if given not in head:
            raise UserError(
                f"{table}:1: there is no column {quoted(given)}.{did_you_mean(given, head)} The"
                f" columns: {', '.join(head)}."
            )
        return given
    for name in known:
        if name in head:
            return name
    raise UserError(
        f"{table}:1: none of the columns ({quoted(', '.join(head))[1:-1]}) is called"
        f" {' or '.join(known)}. Name the right one with {option}."
    )


def _name(folder: Path, table: Path, row: tuple[int, str, str]) -> str:
    """Return a file's name from the folder on; what it leads to is checked when it is loaded."""
    line, name, _ = row
    path = inside(folder, name)
    if not path.exists() and not (folder / name).is_symlink():
        raise UserError(f"{table}:{line}: there is no file {quoted(name)} in {folder}.")
    return Path(name).relative_to(folder).as_posix() if Path(name).is_absolute() else _tidy(name)


def _tidy(name: str) -> str:
    """Return a relative name without `./` and `a/../`."""
    parts: list[str] = []
    for part in Path(name).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _check_folders(names: Sequence[str], rows: Rows, table: Path) -> None:
    """Refuse a table that labels an image as one class where it lies in the folder of another."""
    classes = {comparable(word) for word in readable(sorted({label for _, _, label in rows}))}
    for name, (line, _, label) in zip(names, rows, strict=True):
        if "/" not in name:
            continue
        folder, own = (comparable(readable([word])[0]) for word in (name.split("/")[0], label))
        if folder in classes and folder != own:
            raise UserError(
                f"{table}:{line}: {quoted(name)} lies in the folder of another class than its label"
                f" {quoted(label)}. Correct one of them."
            )
