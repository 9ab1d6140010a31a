"""A folder of images and a CSV or JSONL file that names them with their labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.class_names import comparable, readable
from bench.inputs.labels import LABEL_DIGITS, tidy
from bench.inputs.parsing import MOST_COLUMNS, name_of, parse_json, read_csv, text_of
from bench.machine.files import OutsideError, inside, read_text, regular_file
from bench_plugins.datasets._columns import ANY, Wanted, labelled_images
from bench_plugins.datasets._listing import LeftOut, find_images, plural

METADATA = ("metadata.csv", "metadata.jsonl")
JSON_LINES = (".jsonl", ".ndjson")
IMAGE_COLUMNS = ("file_name", "filename", "image", "file", "path")  # in order of preference
LABEL_COLUMNS = ("label", "class")
JSON_EXAMPLE = '"file_name": "1.png", "label": "cat"'


class TableRow(NamedTuple):
    """A line of the table."""

    line: int
    file: str
    label: str
    id: str | None
    kept: tuple[str, ...]


TableRows = list[TableRow]


def find_table(root: Path, folder: Path) -> Path | None:
    """Return the file beside images that says what they are (UserError); None: there is none."""
    part = folder.relative_to(root)
    there = (name for name in METADATA if regular_file(root, str(part / name)) is not None)
    return next((folder / name for name in there), None)


def has_labels(table: Path, wanted: Wanted = ANY) -> bool:
    """Tell whether the file says labels, not only captions or boxes (UserError)."""
    head, _ = _read(table)
    loose = any(path.parent == table.parent for path in find_images(table.parent, LeftOut()))
    return loose or wanted.label is not None or any(name in head for name in LABEL_COLUMNS)


def load_table(folder: Path, table: Path, split: str, wanted: Wanted = ANY) -> datasets.Dataset:
    """Return the images that a CSV or JSONL file names, with their labels (UserError).

    Columns are those of `wanted`, else the first of `IMAGE_COLUMNS` and of `LABEL_COLUMNS`; the
    names of the files are the ids, and lead from `folder`. Labels must not contradict the folders.
    """
    rows = read_rows(table, wanted)
    names = [_name(folder, table, row) for row in rows]
    first: dict[str, int] = {}
    for name, (line, *_) in zip(names, rows, strict=True):
        if first.setdefault(name, line) != line:
            raise UserError(f"{table}:{line}: {quoted(name)} is already in line {first[name]}.")
    _check_folders(names, rows, table)
    left_out = LeftOut()
    images = find_images(folder, left_out)
    left_out.types.pop(table.suffix.lower(), None)
    unnamed = sum(path.relative_to(folder).as_posix() not in first for path in images)
    if unnamed:
        left_out.others.append(f"{plural(unnamed, 'image')} that {table.name} does not name")
    left_out.tell(folder)
    labels: Sequence[str | int] = [row.label for row in rows]
    kind = "string"
    if all(row.label == "" or row.label.removeprefix("-").isdecimal() for row in rows):
        for row in rows:
            if len(row.label) > LABEL_DIGITS:
                raise UserError(f"{table}:{row.line}: the label {quoted(row.label)} is too large.")
        labels, kind = [int(row.label or -1) for row in rows], "int64"
    paths = [str(folder / name) for name in names]
    ids = [row.id or name for row, name in zip(rows, names, strict=True)]
    kept = {name: [row.kept[i] for row in rows] for i, name in enumerate(wanted.keep)}
    return labelled_images(paths, labels, ids, datasets.Value(kind), split, kept)


def read_rows(table: Path, wanted: Wanted = ANY) -> TableRows:
    """Return the lines of a table; `UserError`: as `load_table`."""
    head, lines = _read(table)
    image = _column(table, head, wanted.image, IMAGE_COLUMNS, "--image-column")
    label = _column(table, head, wanted.label, LABEL_COLUMNS, "--label-column")
    for name in (wanted.id, *wanted.keep):
        if name is not None:
            _column(table, head, name, (), "--id-column")
    rows = []
    for line, row in lines:
        at = f"{table}:{line}"
        file, own_id = tidy(_name_of(row.get(image), image, at), image, at), None
        if not file:
            raise UserError(f"{at}: the column {image!r} names no file.")
        if wanted.id:
            own_id = tidy(_name_of(row.get(wanted.id), wanted.id, at), wanted.id, at)
            if not own_id:
                raise UserError(f"{at}: the column {wanted.id!r} is empty.")
        own_label = tidy(_name_of(row.get(label), label, at), label, at)
        kept = tuple(text_of(row.get(name), name, at).strip() for name in wanted.keep)
        rows.append(TableRow(line, file, own_label, own_id, kept))
    if not rows:
        raise UserError(f"{table} names no images.")
    return rows


def _name_of(value: Any, what: str, at: str) -> str:
    return "" if value is None else name_of(value, what, f"{at}:")


def _read(table: Path) -> tuple[list[str], Iterable[tuple[int, Mapping[str, Any]]]]:
    """Return the names of the columns, and the other lines with their numbers, lazily."""
    kind = "text" if table.suffix.lower() in JSON_LINES else "CSV"
    try:
        text = read_text(table)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table} is not a {kind} file in UTF-8: {error}.") from None
    if kind == "CSV":
        return read_csv(text, str(table))
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


def _column(
    table: Path, head: Sequence[str], named: str | None, usual: Sequence[str], option: str
) -> str:
    if named is not None:
        if named not in head:
            raise UserError(
                f"{table}:1: there is no column {quoted(named)}.{did_you_mean(named, head)} The"
                f" columns: {', '.join(head)}."
            )
        return named
    for name in usual:
        if name in head:
            return name
    apart = len(head) == 1 and any(mark in head[0] for mark in ";\t|")
    hint = "Commas must stand between columns." if apart else f"Name the right one with {option}."
    raise UserError(
        f"{table}:1: none of the columns ({quoted(', '.join(head))[1:-1]}) is called"
        f" {' or '.join(usual)}. {hint}"
    )


def _name(folder: Path, table: Path, row: TableRow) -> str:
    """Return a file's name from the folder on; what it leads to is checked when it is loaded."""
    line, name = row.line, row.file
    try:
        path = inside(folder, name)
    except OutsideError as error:
        raise OutsideError(f"{table}:{line}: {error}") from None
    if not path.exists() and not (folder / name).is_symlink():
        raise UserError(f"{table}:{line}: there is no file {quoted(name)} in {folder}.")
    return Path(name).relative_to(folder).as_posix() if Path(name).is_absolute() else _tidy(name)


def _tidy(name: str) -> str:
    parts: list[str] = []
    for part in Path(name).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _check_folders(names: Sequence[str], rows: TableRows, table: Path) -> None:
    """Refuse a table that labels an image as one class where it lies in the folder of another."""
    classes = {comparable(word) for word in readable(sorted({row.label for row in rows}))}
    for name, (line, _, label, *_) in zip(names, rows, strict=True):
        if "/" not in name:
            continue
        folder, own = (comparable(readable([word])[0]) for word in (name.split("/")[0], label))
        if folder in classes and folder != own:
            raise UserError(
                f"{table}:{line}: {quoted(name)} lies in the folder of another class than its label"
                f" {quoted(label)}. Correct one of them."
            )
