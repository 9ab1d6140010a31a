"""The errors of an image: what is written is read, and damage is named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.refusals import refused

from bench.contracts.strategy import Evaluate, Linearise
from bench.store.formats import packed
from bench.store.formats.cells import (
    has_part,
    has_part_file,
    part_path,
    read_cells,
    read_first_order,
    read_part_table,
    read_timesteps,
    write_cells,
    write_first_order,
)

LEVELS = np.array([10, 500, 999, 3])


def evaluate(prompts: list[int], draws: list[int]) -> Evaluate:
    return Evaluate(np.array(prompts), np.array(draws))


def test_cells_of_several_requests(tmp_path: Path) -> None:
    first = (evaluate([0, 2], [1, 3]), np.array([[0.1, 0.2], [0.3, 0.4]], np.float32))
    second = (evaluate([1], [0]), np.array([[0.5]], np.float32))
    write_cells(tmp_path / "errors", "a/b", [first, second], LEVELS)
    errors = read_cells(tmp_path / "errors", "a/b", (3, 4))
    wanted = np.full((3, 4), np.nan, np.float32)
    wanted[0, [1, 3]], wanted[2, [1, 3]], wanted[1, 0] = (0.1, 0.2), (0.3, 0.4), 0.5
    assert np.array_equal(errors, wanted, equal_nan=True)
    assert read_timesteps(tmp_path / "errors", "a/b", 4).tolist() == [10, 500, -1, 3]
    assert has_part_file(tmp_path / "errors", "a/b") and has_part(tmp_path / "errors", "a/b")
    assert not list((tmp_path / "errors").glob("*.partial"))


def test_an_image_without_a_request_has_an_empty_part(tmp_path: Path) -> None:
    write_cells(tmp_path / "errors", "a", [], LEVELS)
    assert np.isnan(read_cells(tmp_path / "errors", "a", (3, 4))).all()


def test_first_order_errors_of_two_mixtures(tmp_path: Path) -> None:
    even, sharp = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    blocks = [
        (Linearise(np.array([0]), even), np.array([[1.0], [2.0]], np.float32)),
        (Linearise(np.array([0]), sharp), np.array([[3.0], [4.0]], np.float32)),
        (Linearise(np.array([2]), even), np.array([[5.0], [6.0]], np.float32)),
    ]
    write_first_order(tmp_path / "first_order", "a", blocks, LEVELS)
    read = read_first_order(tmp_path / "first_order", "a", (2, 3))
    assert [mixture.tolist() for mixture, _ in read] == [even.tolist(), sharp.tolist()]
    assert np.array_equal(read[0][1], [[1, np.nan, 5], [2, np.nan, 6]], equal_nan=True)
    assert np.array_equal(read[1][1][:, 0], [3, 4]) and np.isnan(read[1][1][:, 1:]).all()


def test_a_file_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "errors"
    write_cells(folder, "a", [], LEVELS)
    path = part_path(folder, "a")
    path.write_bytes(path.read_bytes()[:-3])
    assert not has_part_file(folder, "a")
    with refused(path.name):
        read_cells(folder, "a", (3, 4))
    with pytest.raises(FileNotFoundError):
        read_cells(folder, "another", (3, 4))


def test_indices_outside_the_run_and_nulls_are_damage(tmp_path: Path) -> None:
    folder = tmp_path / "errors"
    write_cells(folder, "a", [(evaluate([2], [3]), np.ones((1, 1), np.float32))], LEVELS)
    with refused("prompt", "0 to 1"):
        read_cells(folder, "a", (2, 4))
    with refused("draw", "0 to 2"):
        read_cells(folder, "a", (3, 3))
    table = pa.table({"prompt": pa.array([None], pa.int32()), "draw": [0], "error": [0.1]})
    pq.write_table(table, part_path(folder, "a"))
    with refused(".parquet"):
        read_cells(folder, "a", (3, 4))


@pytest.mark.parametrize("mixtures", [None, "[", json.dumps([[0.5]]), json.dumps([["a", "b"]])])
def test_damaged_mixtures(mixtures: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "first_order"
    block = (Linearise(np.array([0]), np.array([0.5, 0.5])), np.ones((2, 1), np.float32))
    write_first_order(folder, "a", [block], LEVELS)
    table = pq.read_table(part_path(folder, "a"))
    metadata = None if mixtures is None else {"mixtures": mixtures}
    pq.write_table(table.replace_schema_metadata(metadata), part_path(folder, "a"))
    with refused("mixture"):
        read_first_order(folder, "a", (2, 1))


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
    rng = np.random.default_rng(0)
    prompt, draw = np.indices((20, 100), dtype=np.int32).reshape(2, -1)
    errors = (0.5 + 0.1 * draw / 100 + 0.01 * rng.standard_normal(2000)).astype(np.float32)
    table = pa.table({"sample_id": ["a"] * 2000, "prompt": prompt, "draw": draw, "error": errors})
    packed.write_packed(tmp_path / "errors", [("a", table)])
    assert read_part_table(tmp_path / "errors", "a").equals(table)
    pq.write_table(table, tmp_path / "plain.parquet", compression="zstd")
    smaller = (tmp_path / "errors" / packed.packed_name(0)).stat().st_size
    assert smaller < 0.8 * (tmp_path / "plain.parquet").stat().st_size
