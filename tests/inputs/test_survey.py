"""The fingerprint reads each image once, remembers it, and notices every change."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from helpers.given import load_folder as load
from helpers.given import make_folder, picture, rows_of, spec_of, write_parquet
from PIL import Image

import bench
from bench.inputs import survey as module
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import is_ordinary
from bench.inputs.split import Split
from bench.inputs.survey import hash_image


def by_definition(split: Split) -> str:
    lines = sorted(
        f"{sample_id} {label} {hash_image(row['image'])}"
        for sample_id, label, row in zip(split.sample_ids, split.labels, split.rows, strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The number of images that were read, a number for each survey that read any."""
    counts: list[int] = []

    def counting(image: Mapping[str, Any] | None) -> bool:
        counts.append(1)
        return is_ordinary(image)

    monkeypatch.setattr(module, "is_ordinary", counting)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    return counts


def test_files_are_read_once_and_again_when_they_change(tmp_path: Path, read: list[int]) -> None:
    folder = make_folder(tmp_path / "data", "cat/1.png", "cat/2.png", "dog/3.png")
    first = load(folder)
    assert first.fingerprint == by_definition(first) and len(read) == 3
    assert load(folder).fingerprint == first.fingerprint and len(read) == 3
    file = folder / "cat/1.png"
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # the same size, and below the same time
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = load(folder)
    assert again.fingerprint == by_definition(again) != first.fingerprint and len(read) == 6


@pytest.mark.parametrize("ids", [True, False], ids=["own ids", "ids of bytes"])
def test_parquet_is_read_once(tmp_path: Path, read: list[int], ids: bool) -> None:
    """And again when it was rewritten, although with the same time."""

    def write(*shades: int) -> Path:
        names = {"sample_id": ["a", "b", "c"]} if ids else {}
        images = pa.array([picture(shade) for shade in shades])
        columns = {"image": images, "label": ["x", "y", "x"], **names}
        path = write_parquet(tmp_path / "x.parquet", columns)
        os.utime(path, ns=(10**18, 10**18))
        return path

    first = load(write(1, 2, 3))
    assert first.fingerprint == by_definition(first) and len(read) == 3
    assert load(tmp_path / "x.parquet").fingerprint == first.fingerprint and len(read) == 3
    again = load(write(1, 2, 4))
    assert again.fingerprint == by_definition(again) != first.fingerprint and len(read) == 6


def test_what_is_in_memory_is_never_remembered(read: list[int]) -> None:
    rows = rows_of(["a", "b", "a"], datasets.Value("string"))
    for _ in range(2):
        split = load_split(DataSource(spec_of(rows)))
        assert split.fingerprint == by_definition(split)
    assert len(read) > 6


@pytest.mark.parametrize("way", ["in memory", "a file", "a link"])
def test_other_images_than_those_of_its_files_are_read(
    way: str, tmp_path: Path, read: list[int]
) -> None:
    """Rows that a user changed, and images that a table names, are none of the table's files."""
    columns: dict[str, Any] = {"image": [picture(n) for n in range(5)], "label": [*"xyxyx"]}
    if way != "in memory":
        folder = make_folder(tmp_path / "data", *(f"{n}.png" for n in (0, 2, 3, 4, 5)))
        (folder / "1.png").symlink_to("5.png")
        columns["image"] = [{"bytes": None, "path": f"{n}.png"} for n in range(5)]
        write_parquet(folder / "x.parquet", columns)
    else:
        folder = write_parquet(tmp_path / "x.parquet", columns)
    first = load(folder)
    assert first.fingerprint == by_definition(first)
    if way != "in memory":
        (folder / "1.png").unlink()
        if way == "a link":
            (folder / "1.png").symlink_to("2.png")
        else:
            Image.new("RGB", (8, 8), "white").save(folder / "1.png")
        again = load(folder)
    else:
        plain = bench.load_dataset(str(folder)).cast_column("image", datasets.Image(decode=False))
        images = [row["image"] if n != 1 else picture(9) for n, row in enumerate(plain)]
        changed = plain.map(lambda row, n: {**row, "image": images[n]}, with_indices=True)
        changed = changed.cast_column("image", datasets.Image())
        again = load_split(DataSource(spec_of(changed)))
    assert again.fingerprint == by_definition(again) != first.fingerprint
