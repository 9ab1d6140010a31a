"""Load parquet files and datasets saved by `save_to_disk`, as Arrow tables."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.contracts.dataset import Listing
from bench.errors import UserError, quoted
from bench.inputs.parsing import parse_json
from bench.machine.cache import cache_dir, cached_arrow, stamp
from bench.machine.files import open_regular, read_bytes, resolve_inside
from bench_plugins.datasets._columns import (
    UNNAMED,
    ImageColumns,
    NamedColumns,
    choose_columns,
    convert,
    standard_rows,
)
from bench_plugins.datasets._listing import chosen_split, splits_of, subfolders, warn_of_missing


def converted(
    kind: str,
    files: Sequence[Path],
    key: str,
    schema: pa.Schema,
    tables: Callable[[], Iterator[pa.Table]],
) -> Path:
    """Convert files to one cached Arrow file, and return its path.

    The cache is invalidated when `key`, or a file's size, inode or ctime changes. Outdated Arrow
    files of the same source are deleted. `tables` is called only if there is no cached result.
    """
    place = hashlib.sha256(f"{files[0].parent} {files[0].name}".encode()).hexdigest()[:16]
    state = [key, *(f"{path} {stamp(path)}" for path in files)]
    folder = cache_dir(kind, place)
    target = folder / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.arrow"
    if not target.is_file():
        for old in folder.glob("*.arrow*"):
            old.unlink(missing_ok=True)
    return cached_arrow(target, schema, tables)


VERIFIED = {"page_checksum_verification": True}  # of pages that have a checksum
PARQUET_BATCH = 100  # rows per batch; the Hub writes its own files with as many


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise UserError with a short reason if Arrow data cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{what} cannot be read: {reason}") from None


def load_parquet(source: Path, split: str | None, named: NamedColumns = UNNAMED) -> Listing:
    """Return a split of a parquet file, or of a folder of them such as data/train-….parquet.

    Warns about classes that only other splits contain. Raises UserError, also if files differ in
    their columns or classes.
    """
    by_split = splits_of(source, ".parquet")
    chosen = chosen_split(split, by_split, str(source))
    root = source.parent if source.is_file() else source
    files = [resolve_inside(root, str(path)) for path in by_split[chosen]]
    others = [path for name in by_split if name != chosen for path in by_split[name]]
    with reading(f"The parquet files in {source}"):
        columns = _common_columns(files, named)
        arrow = str(_converted(files, columns, root))
        rows = datasets.Dataset.from_file(arrow)
        others = [resolve_inside(root, str(path)) for path in others]
        names = _all_classes(rows, others, columns, source)
    return Listing(rows.data.table, chosen, class_names=lambda: names, files=(arrow,))


def _all_classes(
    rows: datasets.Dataset, others: Sequence[Path], columns: ImageColumns, source: Path
) -> list[str] | None:
    """Return the text labels of all splits in order; None for one split, or other labels."""
    if not others or rows.features["label"] != datasets.Value("string"):
        return None
    labels = set(rows.data.table["label"].unique().to_pylist())
    label, other_labels = columns.sources["label"], set[Any]()
    for path in others:
        with open_regular(path) as file, pq.ParquetFile(file, **VERIFIED) as parquet:
            if label in parquet.schema_arrow.names:
                other_labels |= set(parquet.read([label])[label].to_pylist())
    classes = [name for name in labels | other_labels if isinstance(name, str) and name.strip()]
    names = sorted(classes)
    warn_of_missing([name for name in names if name not in labels], source)
    return names


def _common_columns(files: Sequence[Path], named: NamedColumns) -> ImageColumns:
    """Return the columns of the files. They must agree, also in the order of the classes."""
    first: ImageColumns | None = None
    for path in files:
        with open_regular(path) as file:
            schema = pq.read_schema(file)
        columns = choose_columns(schema, str(path), named)
        first = first or columns
        if columns != first:
            raise UserError(
                f"{path} differs from {files[0].name} in its columns or in the order of its"
                f" classes: {quoted(columns.features['label'])} against"
                f" {quoted(first.features['label'])}."
            )
    assert first is not None
    return first


def _converted(files: Sequence[Path], columns: ImageColumns, root: Path) -> Path:
    schema, names = columns.features.arrow_schema, [*columns.sources.values()]

    def tables() -> Iterator[pa.Table]:
        for path in files:
            with open_regular(path) as file, pq.ParquetFile(file, **VERIFIED) as parquet:
                for batch in parquet.iter_batches(PARQUET_BATCH, columns=names):
                    batch.validate(full=True)  # finds texts that are not UTF-8
                    yield convert(pa.Table.from_batches([batch]), columns, root).cast(schema)

    return converted("parquet", files, f"{columns} {root}", schema, tables)


STATE = "state.json"


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote the folder, with one split or several."""
    return (folder / STATE).is_file() or (folder / "dataset_dict.json").is_file()


def load_saved(folder: Path, split: str | None, named: NamedColumns = UNNAMED) -> datasets.Dataset:
    """Return a split of a saved dataset, without reading outside its folder (UserError)."""
    parts = {path.name: path for path in subfolders(folder) if (path / STATE).is_file()}
    if (folder / STATE).is_file():
        parts = {"all": folder}
    chosen = chosen_split(split, parts, f"The saved dataset {folder}")
    place = parts[chosen]
    with reading(f"The saved dataset {place}"):
        tables = []
        for name in _files(folder, place):
            file = resolve_inside(folder, str(place / name))
            open_regular(file).close()  # refuses pipes and devices before mapping
            tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
        return standard_rows(pa.concat_tables(tables), str(place), named, folder, chosen)


def _files(folder: Path, place: Path) -> Sequence[str]:
    state: Any = parse_json(read_bytes(resolve_inside(folder, str(place / STATE))))
    entries = state.get("_data_files") if isinstance(state, Mapping) else None
    names = [e.get("filename") if isinstance(e, Mapping) else None for e in entries or ()]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{STATE} names no files")
    return [str(name) for name in names]
