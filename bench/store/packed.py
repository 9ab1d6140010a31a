"""Parts of many images in one file, as in an exported error table.

`errors/packed-00000.parquet` has one row group per image; the schema's metadata has the id and the
metadata of each image's part. A running run writes one file per image instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.machine.files import regular_file

MAX_IMAGES_PER_FILE = 1_000  # the footer is read whole
MAX_ROWS = 50_000_000
_GROUPS = b"groups"
RowGroup = tuple[str, dict[str, str]]  # sample id, and metadata of its part
_content = TypeAdapter(list[RowGroup])


def name_of(number: int) -> str:
    """Return the name of the file with this number, from 0 on."""
    return f"packed-{number:05d}.parquet"


def small(schema: Any) -> dict[str, Any]:
    """Return options of a parquet writer that make tables of cells small, without losing a bit.

    The bytes of errors are stored position by position, since neighbours share the first ones, and
    indices as differences (docs/how-to/publish.md has the sizes).
    """
    import pyarrow.types as kinds

    encodings = {
        field.name: "DELTA_BINARY_PACKED" if kinds.is_integer(field.type) else "BYTE_STREAM_SPLIT"
        for field in schema
        if kinds.is_integer(field.type) or kinds.is_floating(field.type)
    }
    return {
        "compression": "zstd",
        "compression_level": 9,
        "use_dictionary": [name for name in schema.names if name not in encodings],
        "column_encoding": encodings,
        "write_statistics": False,
    }


def write_packed(folder: Path, parts: Iterable[tuple[str, Any]]) -> int:
    """Write parts, with the same columns, into packed files, and return the number of images."""
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    written, rows, images = 0, 0, 0
    groups: list[RowGroup] = []
    writer: Any = None

    def close() -> None:
        if writer is not None:
            writer.add_key_value_metadata({_GROUPS: json.dumps(groups, ensure_ascii=False)})
            writer.close()

    try:
        for sample_id, table in parts:
            if writer is None or len(groups) == MAX_IMAGES_PER_FILE or rows > MAX_ROWS:
                close()
                plain = table.schema.remove_metadata()
                writer = pq.ParquetWriter(folder / name_of(written), plain, **small(plain))
                written, rows, groups = written + 1, 0, []
            metadata = table.schema.metadata or {}
            groups.append((sample_id, {k.decode(): v.decode() for k, v in metadata.items()}))
            writer.write_table(table.replace_schema_metadata(None), row_group_size=len(table) or 1)
            rows, images = rows + len(table), images + 1
    finally:
        close()
    return images


@dataclass(frozen=True)
class PackedPlace:
    """Place of an image's part."""

    file: Path
    group: int
    metadata: Mapping[bytes, bytes]


def find_packed(folder: Path, sample_id: str) -> PackedPlace | None:
    """Return the place of an image's part in packed files, or None; UserError: one is damaged."""
    for file in _files(folder):
        status = file.stat()
        place = _places(file, status.st_mtime_ns, status.st_size).get(sample_id)
        if place is not None:
            return place
    return None


def read_packed(place: PackedPlace, columns: list[str] | None = None) -> Any:
    """Return an image's part, or some columns of it, as a pyarrow table with its metadata."""
    status = place.file.stat()
    file = _open(place.file, status.st_mtime_ns, status.st_size)
    table = file.read_row_group(place.group, columns=columns)
    return table.replace_schema_metadata(dict(place.metadata))


def _files(folder: Path) -> Iterator[Path]:
    number = 0
    while file := regular_file(folder.parent, f"{folder.name}/{name_of(number)}"):
        yield file
        number += 1


@lru_cache(maxsize=8)
def _open(file: Path, changed: int, size: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file} is damaged: {error}.") from None


@lru_cache(maxsize=64)
def _places(file: Path, changed: int, size: int) -> dict[str, PackedPlace]:
    opened = _open(file, changed, size)
    try:
        groups = _content.validate_json((opened.metadata.metadata or {})[_GROUPS])
    except (KeyError, ValidationError):
        raise UserError(f"{file} is damaged: it does not say which images it holds.") from None
    if len(groups) != opened.metadata.num_row_groups:
        raise UserError(
            f"{file} is damaged: it names {len(groups):,} images, and holds another"
            f" number, {opened.metadata.num_row_groups:,}."
        )
    return {
        name: PackedPlace(file, number, {k.encode(): v.encode() for k, v in metadata.items()})
        for number, (name, metadata) in enumerate(groups)
    }
