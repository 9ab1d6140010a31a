"""Load a folder of images with a CSV or JSONL file that lists them with their labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.contracts.dataset import Listing, Row, file_image
from bench.errors import UserError, quoted
from bench.inputs.class_names import convert_to_words, normalise_text
from bench.inputs.parsing import check_column, convert_to_text, read_cell, read_table
from bench.machine.files import OutsideError, regular_file, resolve_inside
from bench_plugins.datasets._columns import UNNAMED, NamedColumns, choose_column
from bench_plugins.datasets._listing import LeftOut, find_images

METADATA = ("metadata.csv", "metadata.jsonl")
IMAGE_COLUMNS = ("file_name", "filename", "image", "file", "path")  # in order of preference
LABEL_COLUMNS = ("label", "class")


def find_table(root: Path, folder: Path) -> Path | None:
    """Return the metadata file in a folder below `root`, or None (UserError if not regular)."""
    part = folder.relative_to(root)
    names = (name for name in METADATA if regular_file(root, str(part / name)) is not None)
    return next((folder / name for name in names), None)


def has_labels(table: Path, named: NamedColumns = UNNAMED) -> bool:
    """Return whether the table has labels, rather than only captions or boxes (UserError).

    It must have them if images lie beside it, in no class folder.
    """
    head, _ = read_table(table)
    loose = any(path.parent == table.parent for path in find_images(table.parent))
    return loose or named.label_column is not None or any(name in head for name in LABEL_COLUMNS)


def load_table(folder: Path, table: Path, split: str, named: NamedColumns = UNNAMED) -> Listing:
    """Return the images that a CSV or JSONL file lists, with their labels (UserError).

    Columns that are not named are the first of `IMAGE_COLUMNS` and of `LABEL_COLUMNS`. File names
    are relative to `folder` and are the sample ids, unless an id column is named. Warns about files
    in the folder that are left out.
    """
    head, lines = read_table(table)
    image = choose_column(named.image_column, IMAGE_COLUMNS, head, str(table), "image")
    label = choose_column(named.label_column, LABEL_COLUMNS, head, str(table), "label")
    for name in named.others:
        check_column(name, head, str(table))
    line_of: dict[str, int] = {}
    rows: list[Row] = []
    for line, cells in lines:
        at = f"{table}:{line}"
        name = _name(folder, read_cell(cells, image, at, required=True), at)
        if name in line_of:
            raise UserError(f"{at}: {quoted(name)} is already in line {line_of[name]}.")
        line_of[name] = line
        text, own_id = read_cell(cells, label, at), named.id_column
        own_id = read_cell(cells, own_id, at, required=True) if own_id else name
        kept = {key: convert_to_text(cells.get(key), key, at).strip() for key in named.keep}
        rows.append(Row(own_id, file_image(folder / name), text, at=at, kept=kept))
    if not rows:
        raise UserError(f"{table} lists no images.")
    _check_folders(line_of, rows)
    left_out = LeftOut()
    images = find_images(folder, left_out, expected=table.suffix.lower())
    paths = (path.relative_to(folder).as_posix() for path in images)
    unlisted = [path for path in paths if path not in line_of]
    left_out.add(unlisted, "image", f" that {table.name} does not list")
    left_out.warn(folder)
    return Listing(rows, split, numbered=True)


def _name(folder: Path, name: str, at: str) -> str:
    """Return a file's name relative to the folder. Its content is checked when it is loaded."""
    try:
        path = resolve_inside(folder, name)
    except OutsideError as error:
        raise OutsideError(f"{at}: {error}") from None
    if not path.exists() and not (folder / name).is_symlink():
        raise UserError(f"{at}: there is no file {quoted(name)} in {folder}.")
    if Path(name).is_absolute():
        return Path(name).relative_to(folder).as_posix()
    return Path(os.path.normpath(name)).as_posix()


def _check_folders(names: Iterable[str], rows: Sequence[Row]) -> None:
    """Raise UserError if the label of an image contradicts the class folder it lies in."""
    labels = [str(row.label) for row in rows]
    classes = {normalise_text(word) for word in convert_to_words(sorted(set(labels)))}
    for name, label, row in zip(names, labels, rows, strict=True):
        if "/" not in name:
            continue
        words = convert_to_words([name.split("/")[0]]) + convert_to_words([label])
        folder, own = map(normalise_text, words)
        if folder in classes and folder != own:
            raise UserError(
                f"{row.at}: {quoted(name)} lies in the folder of another class than its label"
                f" {quoted(label)}. Correct one of them."
            )
