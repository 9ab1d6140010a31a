"""Parquet files and saved datasets, read as Arrow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import UserError, quoted
from bench.inputs.parsing import parse_json
from bench.inputs.rows import rows_of
from bench.machine.cache import cache_dir, made_once, stamp
from bench.machine.files import inside, open_regular, read_bytes
from bench_plugins.datasets._columns import (
    ANY,
    ImageColumns,
    Wanted,
    choose_columns,
    convert,
    standard_rows,
)
from bench_plugins.datasets._listing import chosen_split, splits_of, subfolders, tell_missing


def converted(
    kind: str,
    files: Sequence[Path],
    key: str,
    schema: pa.Schema,
    tables: Callable[[], Iterator[pa.Table]],
) -> Path:
    """Return an Arrow file with the rows of the files; made anew when one of them has changed.

    A change is noticed by size, file number and the time of the last change of any kind, which
    nobody sets back. `kind` is a folder of the cache; another `key` makes another file.
    """
    place = hashlib.sha256(f"{files[0].parent} {files[0].name}".encode()).hexdigest()[:16]
    state = [key, *(f"{path} {stamp(path)}" for path in files)]
    folder = cache_dir(kind, place)
    target = folder / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.arrow"
    if not target.is_file():
        for old in folder.glob("*.arrow*"):
            old.unlink(missing_ok=True)
    return made_once(target, schema, tables)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn a failure of Arrow into a UserError: WHAT cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{what} cannot be read: {reason}") from None


VERIFIED = {"page_checksum_verification": True}  # of pages that have one
PARQUET_BATCH = 100  # read at a time; the Hub's own files are written by as many


def load_parquet(source: Path, split: str | None, wanted: Wanted = ANY) -> datasets.Dataset:
    """Return a split of a parquet file, or of a folder of them such as data/train-….parquet.

    Raises:
        UserError: unreadable files, files that differ in their columns or classes, or an unknown
            split.
    """
    by_split = splits_of(source, ".parquet")
    chosen = chosen_split(split, by_split, str(source))
    root = source.parent if source.is_file() else source
    files = [inside(root, str(path)) for path in by_split[chosen]]
    others = [path for name in by_split if name != chosen for path in by_split[name]]
    with reading(f"The parquet files in {source}"):
        columns = _common_columns(files, wanted)
        rows = datasets.Dataset.from_file(str(_converted(files, columns, root)))
        others = [inside(root, str(path)) for path in others]
        rows = _with_classes_of(rows, others, columns, source)
    return rows_of(rows.data, rows.features, chosen, rows.info.download_checksums or ())


def _with_classes_of(
    rows: datasets.Dataset, others: Sequence[Path], columns: ImageColumns, source: Path
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
    return rows_of(table, features, files=[file["filename"] for file in rows.cache_files])


def _common_columns(files: Sequence[Path], wanted: Wanted) -> ImageColumns:
    """Return the columns of all files, which must have the same and number the classes alike."""
    first: ImageColumns | None = None
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


def _converted(files: Sequence[Path], columns: ImageColumns, root: Path) -> Path:
    schema = columns.features.arrow_schema

    def tables() -> Iterator[pa.Table]:
        for path in files:
            with open_regular(path) as file, pq.ParquetFile(file, **VERIFIED) as parquet:
                for batch in parquet.iter_batches(PARQUET_BATCH, columns=columns.names):
                    batch.validate(full=True)  # texts that are not UTF-8, for one
                    yield convert(pa.Table.from_batches([batch]), columns, root).cast(schema)

    return converted("parquet", files, f"{columns} {root}", schema, tables)


STATE = "state.json"


def is_saved(folder: Path) -> bool:
    """Tell whether a folder is one that `save_to_disk` wrote: a split, or one per split."""
    return (folder / STATE).is_file() or (folder / "dataset_dict.json").is_file()


def load_saved(folder: Path, split: str | None, wanted: Wanted = ANY) -> datasets.Dataset:
    """Return a split of a saved dataset (UserError); nothing outside its folder is read."""
    parts = {path.name: path for path in subfolders(folder) if (path / STATE).is_file()}
    if (folder / STATE).is_file():
        parts = {"all": folder}
    chosen = chosen_split(split, parts, f"The saved dataset {folder}")
    place = parts[chosen]
    with reading(f"The saved dataset {place}"):
        tables = []
        for name in _files(folder, place):
            file = inside(folder, str(place / name))
            open_regular(file).close()  # no pipe or device is mapped
            tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
        return standard_rows(pa.concat_tables(tables), str(place), wanted, folder, chosen)


def _files(folder: Path, place: Path) -> Sequence[str]:
    state: Any = parse_json(read_bytes(inside(folder, str(place / STATE))))
    entries = state.get("_data_files") if isinstance(state, Mapping) else None
    names = [e.get("filename") if isinstance(e, Mapping) else None for e in entries or ()]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{STATE} names no files")
    return [str(name) for name in names]
