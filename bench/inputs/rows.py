"""Validation of the rows that a dataset plugin returns, and operations on rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError, quoted, warn_user
from bench.inputs.labels import check_ids, make_unique
from bench.inputs.survey import find_source_files, survey
from bench.machine.files import resolve_inside

if TYPE_CHECKING:
    import datasets


def drop_unlabelled(
    rows: datasets.Dataset, indices: Sequence[int | None], where: str, skip: bool
) -> tuple[datasets.Dataset, list[int]]:
    """Drop rows without a label; return the others with their labels. Warns about dropped rows.

    Raises UserError if a label is missing and `skip` is False, or all are missing.
    """
    chosen = [row for row, index in enumerate(indices) if index is not None]
    missing = len(indices) - len(chosen)
    if missing and not skip:
        raise UserError(
            f"{where}: {missing} of {len(indices)} images have no label (missing or -1). Use"
            " --skip-unlabelled to leave them out."
        )
    if missing:
        if not chosen:
            raise UserError(f"{where}: none of the {missing} images has a label.")
        warn_user(f"{where}: {missing} of {len(indices)} images have no label and are left out.")
        rows = rows.select(chosen)
    return rows, [index for index in indices if index is not None]


def check_rows(
    rows: datasets.Dataset,
    column: str,
    where: str,
    root: Path | None,
    replaced: Mapping[str, tuple[Sequence[Any], Any]],
) -> datasets.Dataset:
    """Return rows with valid sample ids and absolute paths of image files.

    All files must be in `root`; it is None if the rows name files absolutely. `replaced` has values
    and feature of columns to add or replace. Without `sample_id`, ids are those of the rows or
    hashes of images. Raises UserError if an id is invalid or repeated, or a file is elsewhere.
    """
    import datasets
    import pyarrow as pa

    table, places = find_stored_rows(rows)
    files = find_source_files(rows, table)
    images = resolve_paths(table.column(column), root, where)
    ids: Sequence[Any]
    if "sample_id" in replaced:
        ids = replaced["sample_id"][0]
    elif "sample_id" in rows.column_names:
        ids = read_column(rows, "sample_id")
    else:
        surveyed = survey(images, files)
        ids = make_unique(surveyed.digest(row)[:16] for row in places)
    replaced = {**replaced, "sample_id": (check_ids(ids, where), datasets.Value("string"))}
    columns = {**{name: table.column(name) for name in table.column_names}, column: images}
    features = {name: rows.features[name] for name in table.column_names}
    if isinstance(features[column], datasets.Image):
        features[column] = datasets.Image(decode=False)
    for name, (values, feature) in replaced.items():
        columns[name] = pa.array(_scatter(values, places, len(table)), feature.pa_type)
        features[name] = feature
    dataset = make_dataset(pa.table(columns), datasets.Features(features), rows.split, files)
    return dataset if places == range(len(table)) else dataset.select(places)


def make_dataset(
    table: Any, features: Any, split: Any = None, files: Iterable[object] = (), indices: Any = None
) -> datasets.Dataset:
    """Return a dataset of an Arrow table's rows, or those at `indices`, as `datasets` stores it.

    `files` determine the table completely; there are none if it has other content. The fingerprint
    is random. The library's own would hash the table, which copies all images in memory: for
    200,000 small ones that took seconds and 500 MB.
    """
    import datasets
    from datasets.fingerprint import generate_random_fingerprint

    behind: dict[str, object] = {str(file): {} for file in files}
    return datasets.Dataset(
        table.replace_schema_metadata(features.arrow_schema.metadata),
        info=datasets.DatasetInfo(features=features, download_checksums=behind or None),
        split=None if split is None else datasets.NamedSplit(str(split)),
        indices_table=indices,
        fingerprint=generate_random_fingerprint(),
    )


def make_labelled_dataset(
    columns: Mapping[str, Sequence[Any]], label: Any = None, split: str | None = None
) -> datasets.Dataset:
    """Return a dataset with the columns image, label and any others, which are text.

    `label` is the feature of the labels; None for text.
    """
    import datasets

    text = datasets.Value("string")
    features = dict.fromkeys(columns, text)
    features |= {"image": datasets.Image(), "label": label or text}
    return datasets.Dataset.from_dict(
        dict(columns),
        features=datasets.Features(features),
        split=None if split is None else datasets.NamedSplit(split),
    )


def format_group(columns: Sequence[str], values: Sequence[Any]) -> str | None:
    """Return the name of a group, such as `place water, sex f`, or None if it has no values."""
    pairs = zip(columns, values, strict=True)
    return ", ".join(f"{name} {value}" for name, value in pairs if value is not None) or None


def read_column(rows: datasets.Dataset, name: str) -> list[Any]:
    """Return a column as Python values, a hundred times as fast as row by row."""
    table, places = find_stored_rows(rows)
    values: list[Any] = table.column(name).to_pylist()
    return values if places == range(len(values)) else [values[place] for place in places]


def find_stored_rows(rows: datasets.Dataset) -> tuple[Any, Sequence[int]]:
    """Return the underlying Arrow table, and the positions of the selected rows in it.

    Unlike `flatten_indices`, this copies no images. If a row is selected twice, the table holds a
    copy of each selected row.
    """
    table, selected = rows.data.table, rows._indices
    if selected is None:
        return table, range(len(table))
    places: list[int] = selected.column(0).to_pylist()
    if len(set(places)) < len(places):  # a row that is selected twice needs two ids
        return table.take(places), range(len(places))
    return table, places


def _scatter(values: Sequence[Any], places: Sequence[int], length: int) -> list[Any]:
    """Return a list of `length` with the values at their places, and None elsewhere."""
    spread: list[Any] = [None] * length
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return spread


def find_image_column(columns: Sequence[str], where: str) -> str:
    """Return the name of the image column. Raises UserError if there is none."""
    for name in ("images", "image"):
        if name in columns:
            return name
    raise UserError(
        f"{where} has no column 'image' or 'images'; its columns: {', '.join(columns)}."
    )


def make_list_feature(feature: Any) -> Any:
    """Return the feature of lists of `feature`, for any version of datasets."""
    import datasets

    return datasets.List(feature) if hasattr(datasets, "List") else [feature]  # before 4.0


def disable_decoding(rows: Any, column: str, where: str) -> Any:
    """Return the rows with undecoded images. Raises UserError if the column has no images."""
    import datasets

    feature, stored = rows.features[column], datasets.Image(decode=False)
    if column == "images":
        entry = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
        if not isinstance(entry, datasets.Image):
            raise UserError(f"{where}: its column 'images' holds {feature}, not lists of images.")
        return rows.cast_column(column, make_list_feature(stored))
    if not isinstance(feature, datasets.Image):
        raise UserError(f"{where}: its column 'image' holds {feature}, not images.")
    return rows.cast_column(column, stored)


def get_images(row: Any) -> tuple[Any, ...]:
    """Return the encoded images of a row."""
    return tuple(row["images"] or ()) if "images" in row else (row["image"],)


def resolve_paths(column: Any, root: Path | None, where: str) -> Any:
    """Return a column of stored images with absolute paths inside `root`; bytes are not copied.

    `column` is a chunked Arrow array of structs (bytes, path), or of lists of them. Raises
    UserError if a path leads out of `root`, or is relative and `root` is None.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_list(column.type) or kinds.is_large_list(column.type):
        return pa.chunked_array(
            [_resolve_lists(chunk, root, where) for chunk in column.chunks], column.type
        )

    def resolve_chunk(chunk: Any) -> Any:
        stored = chunk.field("bytes")
        if stored.null_count == 0:
            return chunk
        paths, valid = chunk.field("path").to_pylist(), stored.is_valid().to_pylist()
        absolute = [
            path if path is None or has_bytes else str(_resolve_path(path, root, where))
            for path, has_bytes in zip(paths, valid, strict=True)
        ]
        return pa.StructArray.from_arrays(
            [stored, pa.array(absolute, pa.string())], ["bytes", "path"], mask=chunk.is_null()
        )

    return pa.chunked_array([resolve_chunk(chunk) for chunk in column.chunks], column.type)


def _resolve_lists(chunk: Any, root: Path | None, where: str) -> Any:
    import pyarrow as pa

    images = resolve_paths(pa.chunked_array([chunk.flatten()]), root, where).combine_chunks()
    lengths = chunk.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = [0, *lengths.cumsum().tolist()]
    starts = pa.array(ends, pa.int32())
    return pa.ListArray.from_arrays(starts, images).cast(chunk.type)


def _resolve_path(path: str, root: Path | None, where: str) -> Path:
    if root is not None:
        return resolve_inside(root, path)
    if not Path(path).is_absolute():
        raise UserError(
            f"{where}: the path of an image, {quoted(path)}, is not absolute. A dataset must have"
            " absolute paths, or the bytes of its images."
        )
    return Path(path)
