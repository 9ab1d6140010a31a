"""Parquet files, of the Hub or of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import UserError, quoted
from bench.inputs.rows import rows_of
from bench.machine.files import inside, open_regular
from bench_plugins.datasets._arrow import converted
from bench_plugins.datasets._columns import ANY, Columns, Wanted, choose_columns, convert
from bench_plugins.datasets._listing import tell_missing
from bench_plugins.datasets._splits import SPLITS, splits_of

VERIFIED = {"page_checksum_verification": True}  # of pages that have one
ROWS = 100  # read at a time; the Hub's own files are written by as many


def load_parquet(
    source: Path,
    split: str | None,
    wanted: Wanted = ANY,
) -> datasets.Dataset:
    """Return a split of a parquet file, or of a folder of them such as data/train-….parquet.

    Args:
        source: the file or folder.
        split: the split's name; None: test, validation, train, or all there is.
        wanted: the columns that are named.

    Raises:
        UserError: unreadable files, files that differ in their columns or classes, or an unknown
            split.
    """
    found = splits_of(source, ".parquet")
    chosen = split or next(name for name in (*SPLITS, "all") if name in found)
    if chosen not in found:
        raise UserError(f"{source} has no split {quoted(split)}; it has: {', '.join(found)}.")
    root = source.parent if source.is_file() else source
    files = [inside(root, str(path)) for path in found[chosen]]
    try:
        columns = _common_columns(files, wanted)
        rows = datasets.Dataset.from_file(str(_converted(files, columns, root)))
        others = [
            inside(root, str(path)) for name in found if name != chosen for path in found[name]
        ]
        rows = _with_classes_of(rows, others, columns, source)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0][:200]
        raise UserError(f"The parquet files in {source} cannot be read: {said}") from None
    return rows_of(rows.data, rows.info, chosen)


def _with_classes_of(
    rows: datasets.Dataset, others: Sequence[Path], columns: Columns, source: Path
) -> datasets.Dataset:
    """Number labels that are text by the classes of all splits, not of this one alone."""
    table = rows.data.table
    if not others or rows.features["label"] != datasets.Value("string"):
        return rows
    here, everywhere = set(table["label"].unique().to_pylist()), set()
    for path in others:
        with open_regular(path) as file, pq.ParquetFile(file, **VERIFIED) as parquet:
            if columns.label in parquet.schema_arrow.names:
                everywhere |= set(parquet.read([columns.label])[columns.label].to_pylist())
    names = sorted(name for name in here | everywhere if isinstance(name, str) and name.strip())
    tell_missing([name for name in names if name not in here], source)
    index = {name: position for position, name in enumerate(names)}
    features = rows.features.copy()
    features["label"] = datasets.ClassLabel(names=names)
    labels = pa.array([index.get(name) for name in table["label"].to_pylist()], pa.int64())
    table = table.set_column(table.column_names.index("label"), "label", labels)
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    behind: dict[str, Any] = {file["filename"]: {} for file in rows.cache_files}
    info = datasets.DatasetInfo(features=features, download_checksums=behind or None)
    return rows_of(table, info)


def _common_columns(files: Sequence[Path], wanted: Wanted) -> Columns:
    """Return the columns of all files, which must have the same and number the classes alike."""
    first: Columns | None = None
    for path in files:
        with open_regular(path) as file:
            schema = pq.read_schema(file)
        columns = choose_columns(schema, str(path), wanted)
        first = first or columns
        if columns != first:
            raise UserError(
                f"{path} differs from {files[0].name} in its columns or in the order of its"
                f" classes: {quoted(columns.label_feature)} against {quoted(first.label_feature)}."
            )
    assert first is not None
    return first


def _converted(files: Sequence[Path], columns: Columns, root: Path) -> Path:
    """Return an Arrow file with the rows of the files."""
    schema = columns.features.arrow_schema

    def tables() -> Iterator[pa.Table]:
        for batch in _batches(files, columns):
            batch.validate(full=True)  # texts that are not UTF-8, for one
            yield convert(batch, columns, root).cast(schema)

    return converted("parquet", files, f"{columns} {root}", schema, tables)


def _batches(files: Sequence[Path], columns: Columns) -> Iterator[pa.Table]:
    for path in files:
        with open_regular(path) as file, pq.ParquetFile(file, **VERIFIED) as parquet:
            for batch in parquet.iter_batches(ROWS, columns=columns.names):
                yield pa.Table.from_batches([batch])
