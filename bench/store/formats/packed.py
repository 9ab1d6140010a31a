"""Packed files: the errors of many images in one parquet file, as in an exported error table.

`errors/packed-00000.parquet` has a row group per image. Its metadata lists the id of each image
with the metadata of its part. A run that is being scored writes a file per image instead.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from bench.errors import UserError, refusing
from bench.machine.files import regular_file
from bench.machine.libraries import pa, pq

MAX_IMAGES_PER_FILE = 1_000  # the footer of a file is read whole
MAX_ROWS = 50_000_000  # a file with more rows takes no further image
_GROUPS = b"groups"  # metadata key of the list of row groups
RowGroup = tuple[str, dict[str, str]]  # sample id, and metadata of its part
_row_groups = TypeAdapter(list[RowGroup])


def packed_name(number: int) -> str:
    """Return the name of the packed file with this number, counted from 0."""
    return f"packed-{number:05d}.parquet"


def compact_options(schema: Any) -> dict[str, JsonValue]:
    """Return options of a parquet writer with which tables of cells are small and lossless.

    Floats are split into streams of their bytes, because neighbouring errors share the first ones.
    Integers are stored as differences. docs/how-to/publish.md has the sizes.
    """
    encodings: dict[str, JsonValue] = {}
    for field in schema:
        if pa.types.is_integer(field.type):
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif pa.types.is_floating(field.type):
            encodings[field.name] = "BYTE_STREAM_SPLIT"
    return {
        "compression": "zstd",
        "compression_level": 9,
        "use_dictionary": [name for name in schema.names if name not in encodings],
        "column_encoding": encodings,
        "write_statistics": False,
    }


def write_packed(folder: Path, parts: Iterable[tuple[str, Any]]) -> int:
    """Write sample ids with tables of the same columns into packed files; return how many ids."""
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
                schema = table.schema.remove_metadata()
                file = folder / packed_name(written)
                writer = pq.ParquetWriter(file, schema, **compact_options(schema))
                written, rows, groups = written + 1, 0, []
            metadata = table.schema.metadata or {}
            groups.append((sample_id, {k.decode(): v.decode() for k, v in metadata.items()}))
            writer.write_table(table.replace_schema_metadata(None), row_group_size=len(table) or 1)
            rows, images = rows + len(table), images + 1
    finally:
        close()
    return images


@dataclass(frozen=True)
class PackedPart:
    """An image's part in a packed file, not read yet."""

    file: Path
    group: int  # index of its row group
    metadata: Mapping[bytes, bytes]


def find_packed(folder: Path, sample_id: str) -> PackedPart | None:
    """Return an image's packed part, None if there is none; raise UserError if one is damaged."""
    for file in _files(folder):
        status = file.stat()
        part = _parts(file, status.st_mtime_ns, status.st_size).get(sample_id)
        if part is not None:
            return part
    return None


def read_packed(part: PackedPart, columns: list[str] | None = None) -> Any:
    """Return an image's part, or some columns of it, as a pyarrow table with its metadata."""
    status = part.file.stat()
    file = _open(part.file, status.st_mtime_ns, status.st_size)
    table = file.read_row_group(part.group, columns=columns)
    return table.replace_schema_metadata(dict(part.metadata))


def _files(folder: Path) -> Iterator[Path]:
    number = 0
    while file := regular_file(folder.parent, f"{folder.name}/{packed_name(number)}"):
        yield file
        number += 1


# `changed` and `size` are part of the cache keys, so that a file written anew is opened again.


@lru_cache(maxsize=8)
def _open(file: Path, changed: int, size: int) -> Any:
    with refusing(f"{file} is damaged: ", OSError, pa.ArrowException):
        return pq.ParquetFile(file)


@lru_cache(maxsize=64)
def _parts(file: Path, changed: int, size: int) -> dict[str, PackedPart]:
    opened = _open(file, changed, size)
    try:
        groups = _row_groups.validate_json((opened.metadata.metadata or {})[_GROUPS])
    except (KeyError, ValidationError):
        raise UserError(f"{file} is damaged: its list of images is missing or invalid.") from None
    if len(groups) != opened.metadata.num_row_groups:
        raise UserError(
            f"{file} is damaged: it lists {len(groups):,} images, but holds"
            f" {opened.metadata.num_row_groups:,}."
        )
    return {
        name: PackedPart(file, number, {k.encode(): v.encode() for k, v in metadata.items()})
        for number, (name, metadata) in enumerate(groups)
    }
