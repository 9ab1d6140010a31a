"""Load a folder or file of the user's: recognise the kind of data and choose the split.

A CSV or JSONL file, which lists images with their labels, is read here; other kinds by modules of
their own.
"""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Listing, Row, file_image
from bench.errors import UserError, quoted
from bench.inputs.class_names import convert_to_words, normalise_text
from bench.inputs.items import check_classes
from bench.inputs.parsing import JSON_LINES, check_column, convert_to_text, read_cell, read_table
from bench.machine.files import regular_file
from bench_plugins.datasets._arrow import (
    UNNAMED,
    NamedColumns,
    choose_column,
    is_saved,
    load_parquet,
    load_saved,
)
from bench_plugins.datasets._declared import Declared
from bench_plugins.datasets._listing import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    SkippedRows,
    check_listed,
    chosen_split,
    find_files,
    find_images,
    load_images,
    subfolders,
    usual_name,
)
from bench_plugins.datasets._tars import load_tars

METADATA = ("metadata.csv", "metadata.jsonl")
IMAGE_COLUMNS = ("file_name", "filename", "image", "file", "path")  # in order of preference
LABEL_COLUMNS = ("label", "class")


class Folder:
    """Images in class folders or with a table of labels, parquet, tars, or a saved dataset."""

    declared = Declared

    def __init__(self, labels: str | None = None, **columns: Any) -> None:
        self.labels = None if labels is None else Path(labels)
        self.columns = NamedColumns(**columns)

    def load(self, split: str | None, data_dir: str | None) -> Listing:
        """Return a split: the named one, else the first of test, validation, train, or all."""
        source = Path(str(data_dir))
        if self.labels is not None:
            if source.is_file():
                raise UserError(f"--labels goes with a folder of images, and {source} is a file.")
            return self._load_whole_table(source, self.labels, split)
        is_folder = source.is_dir()
        if is_folder and is_saved(source):
            return load_saved(source, split, self.columns)
        files = find_files(source) if is_folder else [source]
        endings = {path.suffix.lower() for path in files}
        if ".parquet" in endings:
            return load_parquet(source, split, self.columns)
        if ".tar" in endings and not endings & IMAGE_SUFFIXES:
            return load_tars(source, split, self.columns)
        if endings & {".csv", *JSON_LINES} and not is_folder:
            return self._load_whole_table(source.parent, source, split, alone=True)
        if not is_folder:
            raise UserError(
                f"{source} is not supported: expected a folder, or a .parquet, .tar, .csv or .jsonl"
                " file."
            )
        return self._load_folder(source, split)

    def _load_folder(self, source: Path, split: str | None) -> Listing:
        """Return a split of a folder with a table of labels, or with class folders."""
        chosen, parts = choose_split(source, split)
        name = (split or chosen.name) if parts else "all"
        table = find_table(source, chosen)
        if table is not None:
            head, _ = read_table(table)
            has_labels = self.columns.label_column is not None or {*LABEL_COLUMNS} & {*head}
            # Images beside the table lie in no class folder: it alone can have their labels. If
            # there are none, a table without labels, such as of captions, is passed over.
            if has_labels or any(path.parent == chosen for path in find_images(chosen)):
                listing = load_table(chosen, table, name, self.columns)
                others = [find_table(source, part) for part in parts if part != chosen]
                return replace(listing, elsewhere=partial(_labels_of_tables, others, self.columns))
        if self.columns != UNNAMED:
            raise UserError(
                f"There is no column {quoted(self.columns.names[0])}, because {chosen} holds no"
                f" table: neither {METADATA[0]} nor parquet."
            )
        return load_images(chosen, name, parts)

    def _load_whole_table(
        self, folder: Path, table: Path, split: str | None, alone: bool = False
    ) -> Listing:
        chosen = chosen_split(split, ["all"], str(table))
        return load_table(folder, table, chosen, self.columns, alone)


def choose_split(folder: Path, split: str | None) -> tuple[Path, list[Path]]:
    """Return the folder of the chosen split, and those of all splits (UserError).

    Without splits, return the folder itself and an empty list. A folder `train` without folders or
    a table in it is a class. So is `Train` or `training`, unless it is beside another split. Any
    folder may be named as `split`.
    """
    named = [path for path in subfolders(folder) if usual_name(path.name) in SPLIT_NAMES]
    filled = [path for path in named if subfolders(path) or find_table(folder, path)]
    parts = {path.name: path for path in filled if len(filled) > 1 or path.name in SPLIT_NAMES}
    parts |= {path.name: path for path in subfolders(folder) if path.name == split}
    if split == "all" or not (parts or split):
        return folder, []
    chosen = chosen_split(split, parts or ["all"], f"The folder {folder}")
    return parts[chosen], [*parts.values()]


def find_table(root: Path, folder: Path) -> Path | None:
    """Return the metadata file in a folder below `root`, or None (UserError if not regular)."""
    part = folder.relative_to(root)
    names = (name for name in METADATA if regular_file(root, str(part / name)) is not None)
    return next((folder / name for name in names), None)


def _labels_of_tables(tables: Iterable[Path | None], named: NamedColumns) -> Iterator[str]:
    for table in filter(None, tables):
        head, lines = read_table(table)
        label = choose_column(named.label_column, LABEL_COLUMNS, head, str(table), "label")
        yield from (read_cell(cells, label, f"{table}:{line}") for line, cells in lines)


def load_table(
    folder: Path, table: Path, split: str, named: NamedColumns, alone: bool = False
) -> Listing:
    """Return the images that a CSV or JSONL file lists, with their labels (UserError).

    Columns that are not named are the first of `IMAGE_COLUMNS` and of `LABEL_COLUMNS`. File names
    are relative to `folder` and are the sample ids, unless an id column is named. Warns about
    images in the folder that are not listed, unless `alone`: the dataset is the table, no folder.
    """
    head, lines = read_table(table)
    check_classes(head, str(table), named.label_column)
    image = choose_column(named.image_column, IMAGE_COLUMNS, head, str(table), "image")
    label = choose_column(named.label_column, LABEL_COLUMNS, head, str(table), "label")
    for name in named.others:
        check_column(name, head, str(table))
    line_of: dict[str, int] = {}  # name of each image's file → its line
    rows: list[Row] = []
    for line, cells in lines:
        at = f"{table}:{line}"
        file = read_cell(cells, image, at, required=True)
        name = _name_in(folder, os.path.normpath(file))
        check_listed(folder, name, at)
        if name in line_of:
            raise UserError(f"{at}: {quoted(name)} is already in line {line_of[name]}.")
        line_of[name] = line
        text, own_id = read_cell(cells, label, at), name
        if named.id_column is not None:
            own_id = read_cell(cells, named.id_column, at, required=True)
        kept = {key: convert_to_text(cells.get(key), key, at).strip() for key in named.keep}
        rows.append(Row(own_id, file_image(folder / name), text, at=at, kept=kept))
    if not rows:
        raise UserError(f"{table} lists no images.")
    _check_folders(line_of, rows)
    if not alone:
        _warn_of_unlisted(folder, table, line_of)
    return Listing(rows, split, str(table), numbered=True)


def _warn_of_unlisted(folder: Path, table: Path, listed: Container[str]) -> None:
    left_out = SkippedRows()
    images = find_images(folder, left_out, expected=table.suffix.lower())
    paths = (path.relative_to(folder).as_posix() for path in images)
    unlisted = [path for path in paths if path not in listed]
    left_out.add(unlisted, "image", f" that {table.name} does not list")
    left_out.warn(folder)


def _name_in(folder: Path, file: str) -> str:
    """Return a file's path relative to `folder`; one that is relative already stays as it is.

    An absolute path lies in the folder either as written or once links are resolved.
    """
    path = Path(file)
    for resolve in (os.path.normpath, os.path.realpath):
        if path.is_absolute() and Path(resolve(file)).is_relative_to(resolve(folder)):
            return Path(resolve(file)).relative_to(resolve(folder)).as_posix()
    return path.as_posix()


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
