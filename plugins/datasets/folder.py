"""Any folder or file of one's own: what kind of data it is, and which split is meant."""

from __future__ import annotations

from pathlib import Path

import datasets

from bench.errors import UserError, quoted
from bench_plugins.datasets._listing import LeftOut, find_files, subfolders
from bench_plugins.datasets._parquet import load_parquet
from bench_plugins.datasets._pictures import load_images
from bench_plugins.datasets._saved import is_saved, load_saved
from bench_plugins.datasets._splits import SPLITS
from bench_plugins.datasets._table import METADATA, has_labels, load_table


class Folder:
    """Images in a folder per class, images with a table of labels, parquet, or a saved dataset.

    Args:
        labels: a CSV file with a line per image, instead of the folder's `metadata.csv`.
        image_column: the column of the images, or of their files' names.
        label_column: the column of the labels.
    """

    def __init__(
        self,
        labels: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.labels = None if labels is None else Path(labels)
        self.columns = image_column, label_column

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split: the one named, else test, validation, train, or all there is."""
        source = Path(str(data_dir))
        if self.labels is not None:
            if source.is_file():
                raise UserError(f"--labels goes with a folder of images, and {source} is a file.")
            return load_table(source, self.labels, split or "all", *self.columns)
        if source.is_file():
            if source.suffix.lower() != ".parquet":
                raise UserError(f"{source} is neither a folder nor a .parquet file.")
            return load_parquet(source, split, *self.columns)
        if is_saved(source):
            return load_saved(source, split, *self.columns)
        if any(path.suffix == ".parquet" for path in find_files(source, LeftOut())):
            return load_parquet(source, split, *self.columns)
        whole, parts = choose_split(source, split)
        name = split or whole.name if parts else "all"
        if has_labels(whole / METADATA, *self.columns):
            return load_table(whole, whole / METADATA, name, *self.columns)
        if any(self.columns):
            raise UserError(
                f"--image-column and --label-column name columns of a table, and {whole} holds"
                f" none: neither {METADATA} nor parquet."
            )
        return load_images(whole, name, parts)


def choose_split(folder: Path, split: str | None) -> tuple[Path, list[Path]]:
    """Return the folder of the split that is meant, and those of all splits; none: it is whole.

    A folder called `train` that holds neither folders nor a table is a class of that name.

    Raises:
        UserError: there is no such split.
    """
    visible = subfolders(folder)
    parts = [
        path
        for path in visible
        if path.name in SPLITS and (subfolders(path) or (path / METADATA).is_file())
    ]
    named = [path for path in visible if path.name == split]
    if split is not None and split != "all" and not named:
        has = ", ".join(path.name for path in parts) or "all"
        raise UserError(f"The folder {folder} has no split {quoted(split)}; it has: {has}.")
    if split == "all" or not (parts or named):
        return folder, []
    ranked = sorted(parts, key=lambda path: SPLITS.index(path.name))
    chosen = (named or ranked)[0]
    return chosen, [*parts, *(path for path in named if path not in parts)]
