"""The images of items as a data set has them: one column, of an image or of lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.inputs.encoded import settle
from bench.inputs.rows import rows_of


def image_column(columns: Sequence[str], where: str) -> str:
    """Return the name of the column that has the images.

    Raises:
        UserError: there is none.
    """
    for name in ("images", "image"):
        if name in columns:
            return name
    raise UserError(
        f"{where} has no column 'image' or 'images'; its columns: {', '.join(columns)}."
    )


def list_of(feature: Any) -> Any:
    """Return the feature of lists of this one, under any version of datasets."""
    import datasets

    return datasets.List(feature) if hasattr(datasets, "List") else [feature]  # before 4.0


def as_stored(rows: Any, where: str) -> Any:
    """Return the rows with images that are not decoded.

    Raises:
        UserError: there are none.
    """
    import datasets

    column = image_column(rows.column_names, where)
    feature, stored = rows.features[column], datasets.Image(decode=False)
    if column == "images":
        each = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
        if not isinstance(each, datasets.Image):
            raise UserError(f"{where}: its column 'images' holds {feature}, not lists of images.")
        return rows.cast_column(column, list_of(stored))
    if not isinstance(feature, datasets.Image):
        raise UserError(f"{where}: its column 'image' holds {feature}, not images.")
    return rows.cast_column(column, stored)


def settled_items(rows: Any, ids: Sequence[str], where: str, data_dir: Path | None) -> Any:
    """Return the rows with their ids, and with files inside the folder.

    Raises:
        UserError: a file lies outside the folder.
    """
    import datasets

    root = data_dir.parent if data_dir is not None and data_dir.is_file() else data_dir
    column = image_column(rows.column_names, where)
    table = rows.data.table
    if rows._indices is not None:
        table = table.take(rows._indices.column(0))
    if "sample_id" not in rows.column_names:
        table = table.append_column("sample_id", [list(ids)])
    place = table.column_names.index(column)
    table = table.set_column(place, column, settle(table.column(column), root, where))
    features = datasets.Features({**rows.features, "sample_id": datasets.Value("string")})
    info = datasets.DatasetInfo(features=features)
    return rows_of(table.cast(features.arrow_schema), info, rows.split)


def images_of(row: Any) -> tuple[Any, ...]:
    """Return the encoded images of a row."""
    return tuple(row["images"] or ()) if "images" in row else (row["image"],)
