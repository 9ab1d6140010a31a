"""A recorded run knows its draws."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.command import bench
from helpers.flows import edm_sigmas
from helpers.recorded import record
from helpers.refusals import refused

from bench.contracts.levels import Levels, diffusion_levels, edm_levels, flow_levels
from bench.store.formats.cells import DRAWS, LEVEL_COLUMNS, draw_table, read_draws, write_draws

TABLES = {
    "diffusion": diffusion_levels(np.linspace(0.99, 0.01, 50), "epsilon"),
    "flow": flow_levels({"num_train_timesteps": 50, "shift": 3.0}),
    "edm": edm_levels(edm_sigmas(50)),
}


@pytest.mark.parametrize("name", TABLES)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    levels: Levels = TABLES[name]
    rows = np.array([3, 3, 20, 41])
    assert read_draws(tmp_path) is None
    write_draws(tmp_path, draw_table(levels, rows, np.array([0.5, 1, 1, 1.5])))
    found = read_draws(tmp_path)
    assert found is not None and found.n_levels == 50
    assert found.levels.tolist() == rows.tolist() and found.weights.tolist() == [0.5, 1, 1, 1.5]
    for column in LEVEL_COLUMNS:
        one, other = getattr(found.table, column), getattr(levels, column)
        if other is None:
            assert one is None
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other[rows])
    assert [p.name for p in tmp_path.iterdir()] == ["draws.parquet"]


def changed(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    return lambda file: pq.write_table(change(pq.read_table(file)), file)


def column(name: str, values: list[Any]) -> Callable[[Path], object]:
    def change(table: Any) -> Any:
        return table.set_column(table.column_names.index(name), name, pa.array(values))

    return changed(change)


def linked(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
    "no level": changed(lambda table: table.drop(["level"])),
    "no alpha": changed(lambda table: table.drop(["alpha"])),
    "no metadata": changed(lambda table: table.replace_schema_metadata(None)),
    "levels of text": changed(lambda table: table.replace_schema_metadata({"levels": "many"})),
    "a row less": changed(lambda table: table.slice(1)),
    "no row": changed(lambda table: table.slice(0, 0)),
    "level 99": column("level", [3, 3, 20, 99]),
    "level -1": column("level", [-1, 3, 20, 41]),
    "level null": column("level", [None, 3, 20, 41]),
    "level text": column("level", ["a", "b", "c", "d"]),
    "weight NaN": column("weight", [float("nan"), 1.0, 1.0, 1.0]),
    "weight negative": column("weight", [-1.0, 1.0, 1.0, 1.0]),
    "weight text": column("weight", ["a", "b", "c", "d"]),
    "weight list": column("weight", [[1.0], [1.0], [1.0], [1.0]]),
    "alpha infinite": column("alpha", [float("inf"), 0.5, 0.4, 0.3]),
    "link": linked,
    "pipe": piped,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_table_is_refused_with_its_name(kind: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_draws(run, draw_table(TABLES["diffusion"], np.array([3, 3, 20, 41]), np.ones(4)))
    DAMAGES[kind](run / DRAWS)
    with refused(DRAWS) as caught:
        read_draws(run, 4)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("count", "words"), [(4, "4 rows"), (None, "1 to 1")])
def test_the_number_of_rows_is_that_of_the_run(
    count: int | None, words: str, tmp_path: Path
) -> None:
    write_draws(tmp_path, draw_table(TABLES["diffusion"], np.array([3, 3, 20, 41]), np.ones(4)))
    DAMAGES["no row"](tmp_path / DRAWS)
    with refused(words):
        read_draws(tmp_path, count)


def test_a_replay_says_that_the_table_is_damaged(tmp_path: Path) -> None:
    path = record(tmp_path)
    (path / DRAWS).write_bytes(b"PAR1 rubbish PAR1")
    for command, *more in (("replay", "--strategy", "race"), ("sweep",)):
        done = bench(command, path, "--results", tmp_path, *more)
        assert done.refuses(DRAWS), done.err
