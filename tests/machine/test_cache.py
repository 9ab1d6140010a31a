"""Entries of the cache: used as they were written, or made again with a warning."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.refusals import refused, warned

from bench.machine.cache import (
    cache_dir,
    cached_arrow,
    is_cached,
    read_cached,
    write_cached,
    writing_cached,
)

DAMAGE: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "one bit": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1, *_rest(path)])),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "a pipe": lambda path: _piped(path),
    "not UTF-8": lambda path: path.write_bytes(b"\xff" * 64),
}


def _piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _rest(path: Path) -> bytes:
    return path.read_bytes()[1:]


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_small_entry_is_no_entry(case: str, tmp_path: Path) -> None:
    path = tmp_path / "memo.bin"
    write_cached(path, "a hash")
    assert read_cached(path) == b"a hash"
    DAMAGE[case](path)
    with warned("memo.bin"):
        assert read_cached(path) is None
    write_cached(path, b"another")
    assert read_cached(path) == b"another"


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("always", [True, False])
def test_a_damaged_large_entry_is_made_again(case: str, always: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    with writing_cached(path) as file:
        file.write(b"many rows")
    assert is_cached(path, always)
    DAMAGE[case](path)
    with warned("rows.arrow"):
        assert not is_cached(path, always)
    assert not is_cached(path, always)  # gone, without another word
    with writing_cached(path) as file:
        file.write(b"many rows")
    assert is_cached(path, always)


def test_damage_below_the_same_times_is_seen_where_all_is_read(tmp_path: Path) -> None:
    path = tmp_path / "embeddings"
    with writing_cached(path) as file:
        file.write(b"header and data")
    before = path.stat()
    seal = Path(f"{path}.sha256")
    path.write_bytes(b"header but data")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    digest = seal.read_text().split()[0]  # as where the disk itself forgets: no time changes
    facts = path.stat()
    stamp = f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
    seal.write_text(f"{digest} {stamp}")
    assert is_cached(path)
    with warned(path.name):
        assert not is_cached(path, always=True)


def test_a_cache_that_is_copied_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "one" / "rows.arrow"
    path.parent.mkdir()
    with writing_cached(path) as file:
        file.write(b"rows")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert is_cached(tmp_path / "two" / "rows.arrow")


def rows(path: Path) -> list[int]:
    schema = pa.schema({"x": pa.int64()})
    cached_arrow(path, schema, lambda: [pa.table({"x": [1, 2]}, schema=schema)])
    with pa.memory_map(str(path)) as source:
        return list(pa.ipc.open_stream(source).read_all()["x"].to_pylist())


def test_rubbish_in_the_place_of_rows_blocks_nothing(tmp_path: Path) -> None:
    assert rows(tmp_path / "x.arrow") == [1, 2]
    (tmp_path / "x.arrow").write_bytes(b"rubbish")
    with warned("x.arrow"):
        assert rows(tmp_path / "x.arrow") == [1, 2]
    (tmp_path / "y.arrow").write_bytes(b"rubbish that was never finished")
    assert rows(tmp_path / "y.arrow") == [1, 2]


def test_a_full_disk_is_named_with_its_folder(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    schema = pa.schema({"x": pa.binary()})
    table = pa.table({"x": [b"x" * 100_000]}, schema=schema)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with refused("x.arrow"):
            cached_arrow(tmp_path / "x.arrow", schema, lambda: [table])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    (tmp_path / "y.arrow").mkdir()
    with warned("y.arrow"), refused("y.arrow"):
        cached_arrow(tmp_path / "y.arrow", schema, lambda: [table])


def test_a_cache_that_cannot_be_made_is_a_folder_that_nobody_else_could_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    prepared = Path(tempfile.gettempdir(), f"bench-cache-{os.getpid()}")
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "file"))
    folder = cache_dir("embeddings")
    assert prepared not in folder.parents and folder == cache_dir("embeddings")
    assert folder.parent.stat().st_mode & 0o077 == 0


READ_ANOTHER_USER_S = """
import os, sys
from pathlib import Path
from bench.machine.cache import cache_dir, is_cached, write_cached, read_cached
path = cache_dir() / "memo"
print(read_cached(path), is_cached(path))
write_cached(path, "mine")
print(cache_dir("new").parent == path.parent)
"""


@pytest.mark.skipif(not shutil.which("setpriv") or os.getuid() != 0, reason="needs two users")
def test_a_cache_of_another_user_is_read_and_written_as_its_rights_allow(tmp_path: Path) -> None:
    """It is no damage that an entry may not be read."""
    write_cached(tmp_path / "memo", "theirs")
    (tmp_path / "memo").chmod(0o600)
    tmp_path.chmod(0o755)
    for path in (tmp_path / "memo", tmp_path):
        os.chown(path, 65534, 65534)
    bounded = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
    ]  # root without its rights
    done = subprocess.run(
        [*bounded, sys.executable, "-c", READ_ANOTHER_USER_S],
        env={**os.environ, "BENCH_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[:2] == ["None False", "False"] and not done.stderr, done.stderr
    assert read_cached(tmp_path / "memo") == b"theirs"
