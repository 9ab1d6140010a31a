"""Images as they are stored: bytes, or the name of a file, as `datasets` keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

from bench.errors import UserError, quoted
from bench.machine.files import inside, open_regular


def open_encoded(image: Mapping[str, Any] | None) -> BytesIO | BufferedReader:
    """Open a stored image for reading.

    Args:
        image: `{"bytes", "path"}`; the path is used where there are no bytes.

    Raises:
        OSError: there is no image, or its file is missing, no regular file, or cannot be read.
    """
    if image is None or (image.get("bytes") is None and image.get("path") is None):
        raise FileNotFoundError("the dataset holds no image here")
    if image.get("bytes") is not None:
        return BytesIO(image["bytes"])
    return open_regular(image["path"])


def digest(image: Mapping[str, Any] | None) -> str:
    """Return the SHA-256 of an image as it is stored; of one that cannot be read, of its name."""
    try:
        with open_encoded(image) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # it fails when its turn comes; here it only needs something that stands for it
        name = image.get("path") if image else None
        return hashlib.sha256(f"unreadable {name}".encode(errors="surrogateescape")).hexdigest()


def settle(column: Any, root: Path | None, where: str) -> Any:
    """Return a column of stored images with every file name made absolute, inside the root.

    Args:
        column: Arrow, a chunked struct of bytes and path, or lists of them; bytes are not copied.
        root: the folder that the data lies in; None: the dataset names absolute files of its own.
        where: what messages call the dataset.

    Raises:
        UserError: a name leads out of the root, or is relative without one.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_list(column.type) or kinds.is_large_list(column.type):
        return pa.chunked_array(
            [_settled_lists(chunk, root, where) for chunk in column.chunks], column.type
        )

    def settled(chunk: Any) -> Any:
        stored = chunk.field("bytes")
        if stored.null_count == 0:
            return chunk
        paths, known = chunk.field("path").to_pylist(), stored.is_valid().to_pylist()
        named = [
            path if path is None or has_bytes else str(_absolute(path, root, where))
            for path, has_bytes in zip(paths, known, strict=True)
        ]
        return pa.StructArray.from_arrays(
            [stored, pa.array(named, pa.string())], ["bytes", "path"], mask=chunk.is_null()
        )

    return pa.chunked_array([settled(chunk) for chunk in column.chunks], column.type)


def _settled_lists(chunk: Any, root: Path | None, where: str) -> Any:
    """Return lists of stored images, every one settled."""
    import pyarrow as pa

    each = settle(pa.chunked_array([chunk.flatten()]), root, where).combine_chunks()
    lengths = chunk.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = [0, *lengths.cumsum().tolist()]
    starts = pa.array(ends, pa.int32())
    return pa.ListArray.from_arrays(starts, each).cast(chunk.type)


def _absolute(path: str, root: Path | None, where: str) -> Path:
    if root is not None:
        return inside(root, path)
    if not Path(path).is_absolute():
        raise UserError(
            f"{where}: an image's file is named {quoted(path)}, relative to no folder; a dataset"
            " must name its files absolutely, or hold their bytes."
        )
    return Path(path)
