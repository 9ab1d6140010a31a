"""A dataset's class may return rows in place of a table; one function makes the table."""

from pathlib import Path
from typing import Any

import pytest
from helpers.data_sources import pictures, stored
from helpers.given import spec_of
from helpers.refusals import refused

from bench.contracts.dataset import Listing, Row, file_image
from bench.discovery.loading import load_plugins
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import make_config

pytestmark = pytest.mark.filterwarnings("ignore::bench.errors.BenchWarning")


def load(rows: Any, classes: tuple[str, ...] | None = None, **fields: Any) -> Split:
    return load_split(DataSource(spec_of(Listing(rows, **fields), classes)))


def rows_of(*labels: str) -> list[Row]:
    return [Row(f"s{n}", stored(n), label, at=f"F:{n}") for n, label in enumerate(labels, 1)]


@pytest.mark.parametrize(
    ("labels", "fields", "classes", "numbers"),
    [
        (("b", "a", "b"), {}, ("a", "b"), (1, 0, 1)),
        (("b", "a", "b"), {"class_names": lambda: ["c", "b", "a"]}, ("c", "b", "a"), (1, 2, 1)),
        (("10", "9", "10"), {}, ("10", "9"), (0, 1, 0)),
        (("10", "9", "10"), {"numbered": True}, ("9", "10"), (1, 0, 1)),
        (("1", "0"), {"numbered": True, "class_names": lambda: ["c", "b"]}, ("c", "b"), (1, 0)),
        (("1", "x"), {"numbered": True, "class_names": lambda: ["c", "b"]}, ("1", "x"), (0, 1)),
    ],
)
def test_labels_are_names_or_numbers_of_classes(
    labels: tuple[str, ...], fields: Any, classes: Any, numbers: Any
) -> None:
    split = load(rows_of(*labels), split="part", **fields)
    assert (split.classes, split.labels, split.split) == (classes, numbers, "part")
    assert split.sample_ids == tuple(f"s{n}" for n in range(1, len(labels) + 1))


def test_files_groups_and_further_columns_are_kept(tmp_path: Path) -> None:
    folder = pictures(tmp_path, "1.ppm", "2.ppm")
    images = [file_image(folder / f"{n}.ppm") for n in (1, 2)]
    rows = [
        Row("x", images[0], "a", group="sea", kept={"size": "3"}),
        Row("y", images[1], "b", kept={"size": ""}),
    ]
    split = load(rows)
    assert [sample.group for sample in split.samples(("x", "y"))] == ["sea", None]
    assert split.rows["size"][:] == ["3", ""]
    assert load(rows).fingerprint == load(rows[::-1]).fingerprint


def test_an_item_is_a_row_with_texts() -> None:
    from dataclasses import replace

    pairs = [
        Row("x", (stored(1), stored(2)), (1, 0), "g", texts=("a cat", "a dog")),
        Row("y", (stored(3), None), (0, 1), "g", texts=("a b", "b a")),
    ]
    split = load_split(DataSource(replace(spec_of(Listing(pairs)), items=True)))
    assert split.items is not None and split.items.shapes == ((2, 2), (2, 2))
    assert split.labels == (2, 1) and split.sample_ids == ("x", "y")
    choices = [Row("x", stored(1), 1, texts=("a", "b")), Row("y", stored(2), 0, texts=("c",))]
    with refused("'y'"):
        load_split(DataSource(replace(spec_of(Listing(choices)), items=True)))


def test_one_dataset_reads_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataclasses import replace

    registry = load_plugins().datasets
    other = replace(registry.get("digits"), name="other", paths=True)
    monkeypatch.setitem(registry._specs, "other", other)
    with refused("'folder'", "'other'"):
        find_dataset(make_config({"dataset": str(tmp_path)}))
    monkeypatch.delitem(registry._specs, "other")
    monkeypatch.delitem(registry._specs, "folder")
    with refused("none"):
        find_dataset(make_config({"dataset": str(tmp_path)}))
