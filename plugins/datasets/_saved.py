"""Datasets that `datasets` has saved with `save_to_disk`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from bench.errors import UserError, quoted
from bench.inputs.parsing import parse_json
from bench.inputs.rows import rows_of
from bench.machine.files import inside, open_regular, read_bytes
from bench_plugins.datasets._columns import ANY, Wanted, choose_columns, convert
from bench_plugins.datasets._listing import subfolders
from bench_plugins.datasets._splits import SPLITS

STATE = "state.json"


def is_saved(folder: Path) -> bool:
    """Tell whether a folder is one that `save_to_disk` wrote: a split, or one per split."""
    return (folder / STATE).is_file() or (folder / "dataset_dict.json").is_file()


def load_saved(folder: Path, split: str | None, wanted: Wanted = ANY) -> datasets.Dataset:
    """Return a split of a saved dataset; nothing that it names outside the folder is read.

    Raises:
        UserError: it is damaged, or has no such split.
    """
    parts = {path.name: path for path in subfolders(folder) if (path / STATE).is_file()}
    if (folder / STATE).is_file():
        parts = {"all": folder}
    chosen = split or next((name for name in SPLITS if name in parts), next(iter(parts), "all"))
    if chosen not in parts:
        raise UserError(
            f"The saved dataset {folder} has no split {quoted(split)};"
            f" it has: {', '.join(parts) or 'none'}."
        )
    place = parts[chosen]
    try:
        tables = [_read(inside(folder, str(place / name))) for name in _files(folder, place)]
        table = pa.concat_tables(tables)
        columns = choose_columns(table.schema, str(place), wanted)
        converted = convert(table, columns, folder)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0][:200]
        raise UserError(f"The saved dataset {place} cannot be read: {said}") from None
    info = datasets.DatasetInfo(features=columns.features)
    return rows_of(converted, info, chosen)


def _files(folder: Path, place: Path) -> Sequence[str]:
    state: Any = parse_json(read_bytes(inside(folder, str(place / STATE))))
    entries = state.get("_data_files") if isinstance(state, Mapping) else None
    names = [e.get("filename") if isinstance(e, Mapping) else None for e in entries or ()]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{STATE} names no files")
    return [str(name) for name in names]


def _read(path: Path) -> pa.Table:
    with open_regular(path):  # no pipe or device is mapped
        pass
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
