"""Load a folder or file of the user's: recognise the kind of data and choose the split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Listing
from bench.errors import UserError, quoted
from bench.inputs.parsing import JSON_LINES
from bench_plugins.datasets._arrow import is_saved, load_parquet, load_saved
from bench_plugins.datasets._columns import UNNAMED, NamedColumns
from bench_plugins.datasets._declared import Declared
from bench_plugins.datasets._listing import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    chosen_split,
    find_files,
    load_images,
    subfolders,
)
from bench_plugins.datasets._table import METADATA, find_table, has_labels, load_table
from bench_plugins.datasets._tars import load_tars

if TYPE_CHECKING:
    import datasets


class Folder:
    """Images in class folders or with a table of labels, parquet, tars, or a saved dataset."""

    declared = Declared

    def __init__(self, labels: str | None = None, **columns: Any) -> None:
        self.labels = None if labels is None else Path(labels)
        self.columns = NamedColumns(**columns)

    def load(self, split: str | None, data_dir: str | None) -> Listing | datasets.Dataset:
        """Return a split: the named one, else the first of test, validation, train, or all."""
        source = Path(str(data_dir))
        if self.labels is not None:
            if source.is_file():
                raise UserError(f"--labels goes with a folder of images, and {source} is a file.")
            return self._load_whole_table(source, self.labels, split)
        is_folder = source.is_dir()
        if is_folder and is_saved(source):
            return load_saved(source, split, self.columns)
        files = find_files(source) if is_folder else [Path(source.name.lower())]
        endings = {path.suffix for path in files}
        if ".parquet" in endings:
            return load_parquet(source, split, self.columns)
        if ".tar" in endings and not endings & IMAGE_SUFFIXES:
            return load_tars(source, split, self.columns)
        if endings & {".csv", *JSON_LINES} and not is_folder:
            return self._load_whole_table(source.parent, source, split)
        if not is_folder:
            raise UserError(
                f"{source} is not supported: expected a folder, or a .parquet, .tar, .csv or .jsonl"
                " file."
            )
        whole, parts = choose_split(source, split)
        name = split or whole.name if parts else "all"
        table = find_table(source, whole)
        if table is not None and has_labels(table, self.columns):
            return load_table(whole, table, name, self.columns)
        if self.columns != UNNAMED:
            raise UserError(
                f"There is no column {quoted(self.columns.names[0])}, because {whole} holds no"
                f" table: neither {METADATA[0]} nor parquet."
            )
        return load_images(whole, name, parts)

    def _load_whole_table(self, folder: Path, table: Path, split: str | None) -> Listing:
        return load_table(folder, table, chosen_split(split, ["all"], str(table)), self.columns)


def choose_split(folder: Path, split: str | None) -> tuple[Path, list[Path]]:
    """Return the folder of the chosen split, and those of all splits (UserError).

    Without splits, they are the folder itself and an empty list. A folder called `train` that holds
    neither folders nor a table is a class of that name.
    """
    visible = subfolders(folder)
    parts = [
        path
        for path in visible
        if path.name in SPLIT_NAMES and (subfolders(path) or find_table(folder, path))
    ]
    named = [path for path in visible if path.name == split]
    if split is not None and split != "all" and not named:
        has = ", ".join(path.name for path in parts) or "all"
        raise UserError(f"The folder {folder} has no split {quoted(split)}; it has: {has}.")
    if split == "all" or not (parts or named):
        return folder, []
    ranked = sorted(parts, key=lambda path: SPLIT_NAMES.index(path.name))
    chosen = (named or ranked)[0]
    return chosen, [*parts, *(path for path in named if path not in parts)]
