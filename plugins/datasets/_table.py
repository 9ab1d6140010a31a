"""A folder of images and a CSV or JSONL file that names them with their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from bench.errors import UserError, quoted
from bench.inputs.class_names import comparable, readable
from bench.inputs.labels import as_numbers, tidy
from bench.inputs.parsing import (
    MOST_COLUMNS,
    check_column,
    name_of,
    parse_json,
    read_csv_file,
    read_text_file,
    text_of,
)
from bench.inputs.rows import labelled_images
from bench.machine.files import OutsideError, inside, regular_file
from bench_plugins.datasets._columns import ANY, Wanted, choose_column
from bench_plugins.datasets._listing import LeftOut, find_images, plural

METADATA = ("metadata.csv", "metadata.jsonl")
JSON_LINES = (".jsonl", ".ndjson")
IMAGE_COLUMNS = ("file_name", "filename", "image", "file", "path")  # in order of preference
LABEL_COLUMNS = ("label", "class")
JSON_EXAMPLE = '"file_name": "1.png", "label": "cat"'


def find_table(root: Path, folder: Path) -> Path | None:
    """Return the file beside images that says what they are (UserError); None: there is none."""
    part = folder.relative_to(root)
    there = (name for name in METADATA if regular_file(root, str(part / name)) is not None)
    return next((folder / name for name in there), None)


def has_labels(table: Path, wanted: Wanted = ANY) -> bool:
    """Tell whether the file says labels, not only captions or boxes (UserError)."""
    head, _ = _read(table)
    loose = any(path.parent == table.parent for path in find_images(table.parent))
    return loose or wanted.label_column is not None or any(name in head for name in LABEL_COLUMNS)


def load_table(folder: Path, table: Path, split: str, wanted: Wanted = ANY) -> datasets.Dataset:
    """Return the images that a CSV or JSONL file names, with their labels (UserError).

    Columns are those of `wanted`, else the first of `IMAGE_COLUMNS` and of `LABEL_COLUMNS`; the
    names of the files are the ids, and lead from `folder`. Labels must not contradict the folders.
    """
    head, lines = _read(table)
    image = choose_column(wanted.image_column, IMAGE_COLUMNS, head, str(table), "image")
    label = choose_column(wanted.label_column, LABEL_COLUMNS, head, str(table), "label")
    for name in wanted.others:
        check_column(name, head, str(table))
    line_of: dict[str, int] = {}
    labels: list[str] = []
    ids: list[str] = []
    kept: dict[str, list[str]] = {name: [] for name in wanted.keep}
    for line, row in lines:
        at = f"{table}:{line}"
        file = _cell(row, image, at)
        if not file:
            raise UserError(f"{at}: the column {image!r} names no file.")
        name = _name(folder, file, at)
        if name in line_of:
            raise UserError(f"{at}: {quoted(name)} is already in line {line_of[name]}.")
        line_of[name] = line
        labels.append(_cell(row, label, at))
        ids.append(_cell(row, wanted.id_column, at) if wanted.id_column else name)
        if not ids[-1]:
            raise UserError(f"{at}: the column {wanted.id_column!r} is empty.")
        for column, texts in kept.items():
            texts.append(text_of(row.get(column), column, at).strip())
    if not line_of:
        raise UserError(f"{table} names no images.")
    _check_folders(line_of, labels, table)
    left_out = LeftOut()
    images = find_images(folder, left_out)
    left_out.types.pop(table.suffix.lower(), None)
    unnamed = sum(path.relative_to(folder).as_posix() not in line_of for path in images)
    if unnamed:
        left_out.others.append(f"{plural(unnamed, 'image')} that {table.name} does not name")
    left_out.tell(folder)
    numbers = as_numbers(labels, [f"{table}:{line}" for line in line_of.values()])
    columns: dict[str, Sequence[Any]] = {
        "image": [str(folder / name) for name in line_of],
        "label": labels if numbers is None else numbers,
        "sample_id": ids,
        **kept,
    }
    return labelled_images(columns, datasets.Value("string" if numbers is None else "int64"), split)


def _cell(row: Mapping[str, Any], column: str, at: str) -> str:
    """Return a text or whole number without spaces around it; empty where there is none."""
    value = row.get(column)
    return "" if value is None else tidy(name_of(value, column, f"{at}:"), column, at)


def _read(table: Path) -> tuple[list[str], Iterable[tuple[int, Mapping[str, Any]]]]:
    """Return the names of the columns, and the other lines with their numbers, lazily."""
    if table.suffix.lower() not in JSON_LINES:
        return read_csv_file(table)
    text = read_text_file(table)
    head: dict[str, None] = {}
    for line, value in _objects(table, text):
        head.update(dict.fromkeys(value))
        if len(head) > MOST_COLUMNS:
            raise UserError(
                f"{table}:{line}: more than {MOST_COLUMNS:,} different keys so far; the lines must"
                " have the same."
            )
    return list(head), _objects(table, text)


def _objects(table: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = parse_json(content)
        except ValueError as error:
            raise UserError(f"{table}:{line}: this is not JSON: {str(error)[:200]}.") from None
        if not isinstance(value, dict):
            raise UserError(f"{table}:{line}: expected a JSON object, such as {{{JSON_EXAMPLE}}}.")
        yield line, value


def _name(folder: Path, name: str, at: str) -> str:
    """Return a file's name from the folder on; what it leads to is checked when it is loaded."""
    try:
        path = inside(folder, name)
    except OutsideError as error:
        raise OutsideError(f"{at}: {error}") from None
    if not path.exists() and not (folder / name).is_symlink():
        raise UserError(f"{at}: there is no file {quoted(name)} in {folder}.")
    return Path(name).relative_to(folder).as_posix() if Path(name).is_absolute() else _tidy(name)


def _tidy(name: str) -> str:
    parts: list[str] = []
    for part in Path(name).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _check_folders(line_of: Mapping[str, int], labels: Sequence[str], table: Path) -> None:
    """Refuse a table that labels an image as one class where it lies in the folder of another."""
    classes = {comparable(word) for word in readable(sorted(set(labels)))}
    for (name, line), label in zip(line_of.items(), labels, strict=True):
        if "/" not in name:
            continue
        folder, own = (comparable(readable([word])[0]) for word in (name.split("/")[0], label))
        if folder in classes and folder != own:
            raise UserError(
                f"{table}:{line}: {quoted(name)} lies in the folder of another class than its label"
                f" {quoted(label)}. Correct one of them."
            )
