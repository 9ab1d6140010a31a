"""Reads every image once, for its hash and whether PIL decodes it unchanged; cached on disk.

Images are read in Arrow batches, and only 33 bytes are kept of each. A file counts as unchanged if
its device, inode, size, modification time and change time are the same. The change time cannot be
set back, so a file that was rewritten with its old modification time is read again.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Rows, StoredImage
from bench.inputs.pixels import VERSION, is_ordinary, open_encoded
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.libraries import pc
from bench.machine.libraries.private_datasets import is_memory_mapped
from bench.machine.stages import counted

FORMAT = 3  # of the cached results
WIDTH = 33  # bytes per image: its SHA-256, and whether it is ordinary (see `pixels`)


@dataclass(frozen=True)
class ImageSurvey:
    """Results for each row of a table."""

    content: bytes

    def digest(self, row: int) -> str:
        """Return the SHA-256 of a row's encoded image in hex digits."""
        return self.content[row * WIDTH : (row + 1) * WIDTH - 1].hex()

    def is_ordinary(self, row: int) -> bool:
        """Return whether a row's image is decoded exactly as PIL does."""
        return bool(self.content[(row + 1) * WIDTH - 1])


def find_source_files(rows: Rows, table: Any) -> tuple[str, ...]:
    """Return the files that completely determine a dataset's table.

    They are the memory-mapped Arrow files, or the files that one of our readers converted in
    memory: `make_dataset` keeps their names as `download_checksums` without checksums. Empty if
    part of the table is in memory only.
    """
    if table is not rows.data.table:
        return ()  # the table has rows of it in another order
    named = rows.info.download_checksums or {}
    if named and not any(named.values()):
        return tuple(named)
    return tuple(f["filename"] for f in rows.cache_files) if is_memory_mapped(rows) else ()


def survey(images: Any, files: Sequence[str] = ()) -> ImageSurvey:
    """Return the hash of each image of a column, and whether it is ordinary (see `pixels`).

    `images` is a chunked Arrow array of structs (bytes, path), and `files` determine it, but not
    the files that it names. Without `files`, results are cached only if all images are files.
    """
    memo = _find_cache_file(images, files)
    if memo is not None:
        content = read_cached(memo) or b""
        if len(content) == len(images) * WIDTH:
            return ImageSurvey(content)
    made = bytearray()
    for image in counted(stored_images(images), "Reading images for the first time", len(images)):
        made += bytes.fromhex(hash_image(image)) + bytes([is_ordinary(image)])
    if memo is not None:
        write_cached(memo, bytes(made))
    return ImageSurvey(bytes(made))


def stored_images(images: Any) -> Iterator[StoredImage | None]:
    """Yield the images; their bytes are not copied."""
    for chunk in images.chunks:
        stored, paths = chunk.field("bytes"), chunk.field("path")
        for row in range(len(chunk)):
            if not chunk[row].is_valid:
                yield None
                continue
            content = stored[row]
            buffer = content.as_buffer() if content.is_valid else None
            yield {"bytes": buffer, "path": paths[row].as_py() if buffer is None else None}


def _find_cache_file(images: Any, files: Sequence[str]) -> Path | None:
    """Return where the result is cached, or None if only reading would identify the images."""
    state = hashlib.sha256(f"{FORMAT} {VERSION} {len(images)}".encode())
    try:
        for file in files:
            state.update(_describe_file(file))
        for chunk in images.chunks:
            stored = chunk.field("bytes")
            if stored.null_count < len(stored):
                if not files:
                    return None
                state.update(pc.binary_length(stored).to_numpy(zero_copy_only=False))
        # The same files may have had another column of images.
        probed = {0, len(images) // 2, len(images) - 1} if len(images) else set()
        for row in probed:
            state.update(hash_image(next(stored_images(images.slice(row, 1)))).encode())
        for path in _list_files(images):
            state.update(b"none\n" if path is None else _describe_file(path))
    except OSError:  # a missing file fails its image, and may exist next time
        return None
    return cache_dir("survey") / f"{state.hexdigest()[:32]}.bin"


def _list_files(images: Any) -> list[str | None]:
    """Return the path, or None, of each image of a column whose bytes are not in it."""
    parts = [(chunk.field("path"), chunk.field("bytes").is_null()) for chunk in images.chunks]
    return [path for paths, outside in parts for path in paths.filter(outside).to_pylist()]


def _describe_file(path: str) -> bytes:
    file = os.stat(path)  # noqa: PTH116  # twice as fast as pathlib's; there may be 200,000 files
    numbers = file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns
    return b"%s %d %d %d %d %d\n" % (path.encode(errors="surrogateescape"), *numbers)


def hash_image(image: Mapping[str, Any] | None) -> str:
    """Return the SHA-256 of an encoded image, or of its name if it cannot be read."""
    try:
        with open_encoded(image) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # the image will fail when it is scored; here it only needs an identity
        name = image.get("path") if image else None
        return hashlib.sha256(f"unreadable {name}".encode(errors="surrogateescape")).hexdigest()
