"""Parquet files, of the Hub or of one's own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import UserError, quoted
from bench.inputs.files import inside, open_regular
from bench.machine.cache import cache_dir
from bench_plugins.datasets._columns import ANY, Columns, Wanted, choose_columns, convert
from bench_plugins.datasets._listing import LeftOut, find_files, tell_missing
from bench_plugins.datasets._splits import SPLITS

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
    found = _splits(source)
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
    return datasets.Dataset(rows.data, info=rows.info, split=datasets.NamedSplit(chosen))


def _with_classes_of(
    rows: datasets.Dataset, others: Sequence[Path], columns: Columns, source: Path
) -> datasets.Dataset:
    """Number labels that are text by the classes of all splits, not of this one alone."""
    table = rows.data.table
    if not others or rows.features["label"] != datasets.Value("string"):
        return rows
    here, everywhere = set(table["label"].unique().to_pylist()), set()
    for path in others:
        with open_regular(path) as file, pq.ParquetFile(file) as parquet:
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
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=features))


def _splits(source: Path) -> dict[str, list[Path]]:
    """Return the files of each split, which a file's or its folder's name begins with."""
    if source.is_file():
        return {"all": [source]}
    found: dict[str, list[Path]] = {}
    for path in find_files(source, LeftOut()):
        if path.suffix == ".parquet":
            begins = re.compile("|".join(SPLITS))
            named = begins.match(path.stem) or begins.match(path.parent.name)
            found.setdefault(named.group() if named else "all", []).append(path)
    return found


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
    """Return an Arrow file with the rows of the files; made anew when one of them has changed.

    Arrow is read from disk row by row, which parquet cannot be. A change is noticed by size, file
    number and the time of the last change of any kind, which nobody sets back.
    """
    place = hashlib.sha256(f"{files[0].parent} {files[0].name}".encode()).hexdigest()[:16]
    state = [f"{columns} {root}"]
    for path in files:
        facts = path.stat()
        state.append(
            f"{path} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
        )
    folder = cache_dir("parquet", place)
    target = folder / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.arrow"
    if not target.is_file():
        for old in folder.glob("*.arrow"):
            old.unlink(missing_ok=True)
        _write(target, files, columns, root)
    return target


def _write(target: Path, files: Sequence[Path], columns: Columns, root: Path) -> None:
    temporary = target.with_suffix(f".{os.getpid()}")
    try:
        schema = columns.features.arrow_schema
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
            for batch in _batches(files, columns):
                stream.write_table(convert(batch, columns, root).cast(schema))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _batches(files: Sequence[Path], columns: Columns) -> Iterator[pa.Table]:
    for path in files:
        with open_regular(path) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(ROWS, columns=columns.names):
                yield pa.Table.from_batches([batch])
