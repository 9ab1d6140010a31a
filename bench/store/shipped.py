"""The default folder of results, and the published runs that come with the package in the cache."""

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile, ZipInfo

from bench.machine.cache import cache_dir
from bench.machine.files import read_bytes, write_atomically

PUBLISHED_FOLDER = "published"  # name of a folder of published runs
SHIPPED_ARCHIVE = Path("bench", "store", "published.zip")  # in a clone of the repository


def default_results() -> str:
    """Return the folder of stored runs unless a caller names one: `BENCH_RESULTS`, or `results`."""
    return os.environ.get("BENCH_RESULTS") or "results"


def is_published(run: Path) -> bool:
    """Return whether a run's folder is one of the published runs."""
    return run.parent.name == PUBLISHED_FOLDER


def published_note(run: Path, results: str) -> str:
    """Return a sentence that says where a published run, given by its folder, is from."""
    place = f": {results} has none" if is_shipped(run) else f", in {run.parent}"
    return f"{run.name} is a published run{place}."


def is_shipped(run: Path) -> bool:
    """Return whether a run's folder is a copy that `shipped_folder` restores."""
    return run.parent.parent.parent == cache_dir("shipped")  # shipped/<digest>/published/<run>


def shipped_folder() -> Path:
    """Return the folder of the shipped runs, unpacked into the cache, changed files restored."""
    content = files("bench.store").joinpath(SHIPPED_ARCHIVE.name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    folder = cache_dir("shipped", digest, PUBLISHED_FOLDER)
    with ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            path = folder / entry.filename
            with suppress(OSError):  # the file is missing, or not regular: it is written
                if zlib.crc32(read_bytes(path)) == entry.CRC:
                    continue
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, archive.read(entry), durable=False)
    return folder


def pack(published: Path) -> bytes:
    """Return the archive of a folder of published runs; the same files give the same bytes."""
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_LZMA) as archive:
        for path in _packed_files(published):
            entry = ZipInfo(path.relative_to(published).as_posix())
            archive.writestr(entry, path.read_bytes(), ZIP_LZMA)
    return out.getvalue()


def is_packed(published: Path, archive: Path) -> bool:
    """Return whether an archive has the files of a folder of published runs."""
    if not archive.is_file():
        return False
    with ZipFile(archive) as packed:
        stored = {entry.filename: entry.CRC for entry in packed.infolist()}
    return stored == {
        path.relative_to(published).as_posix(): zlib.crc32(path.read_bytes())
        for path in _packed_files(published)
    }


def _packed_files(published: Path) -> Iterator[Path]:
    return (path for path in sorted(published.rglob("*.json*")) if path.is_file())
