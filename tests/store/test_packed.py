"""Parts of many images in one file are read as the files of each image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.refusals import refused

from bench.store import packed
from bench.store.cells import has_part, read_part_table


def parts(n: int) -> Iterator[tuple[str, Any]]:
    for i in range(n):
        table = pa.table({"error": pa.array([float(i)] * i, pa.float32())})
        yield f"image {i}/é", table.replace_schema_metadata({"mixtures": f"[[{i}]]"})


def test_each_image_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_IMAGES_PER_FILE", 3)
    folder = tmp_path / "errors"
    assert packed.write_packed(folder, parts(8)) == 8
    assert len(list(folder.iterdir())) == 3
    for name, table in parts(8):  # the first has no row at all
        found = read_part_table(folder, name)
        assert found.equals(table) and found.schema.metadata == table.schema.metadata
    assert has_part(folder, "image 7/é") and not has_part(folder, "image 8/é")
    with pytest.raises(FileNotFoundError):
        read_part_table(folder, "image 8/é")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "run" / "errors"
    folder.mkdir(parents=True)
    file = folder / packed.packed_name(0)
    file.write_bytes(b"PAR1")
    with refused("packed-00000.parquet"):
        read_part_table(folder, "a")
    pq.write_table(pa.table({"error": [1.0]}), file)
    with refused("packed-00000.parquet"):
        read_part_table(folder, "a")
    file.unlink()
    outside = tmp_path / "outside.parquet"
    packed.write_packed(tmp_path / "other", parts(2))
    (tmp_path / "other" / packed.packed_name(0)).rename(outside)
    file.symlink_to(outside)
    with refused("packed-00000.parquet"):
        read_part_table(folder, "image 1/é")


def test_cells_take_less_room_and_lose_no_bit(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    prompt, draw = np.indices((20, 100), dtype=np.int32).reshape(2, -1)
    errors = (0.5 + 0.1 * draw / 100 + 0.01 * rng.standard_normal(2000)).astype(np.float32)
    table = pa.table({"sample_id": ["a"] * 2000, "prompt": prompt, "draw": draw, "error": errors})
    packed.write_packed(tmp_path / "errors", [("a", table)])
    assert read_part_table(tmp_path / "errors", "a").equals(table)
    pq.write_table(table, tmp_path / "plain.parquet", compression="zstd")
    smaller = (tmp_path / "errors" / packed.packed_name(0)).stat().st_size
    assert smaller < 0.8 * (tmp_path / "plain.parquet").stat().st_size
