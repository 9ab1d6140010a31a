"""Splits of digits, folders and tables are fixed, and a limit takes a stratified, nested part."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Value
from helpers.command import bench
from helpers.given import rows_of, spec_of
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.inputs.data import DataSource, check_data_dir, load_split
from bench.inputs.rows import disable_decoding
from bench.inputs.subsets import select_subset


def test_limit_is_stratified_nested_and_independent_of_order() -> None:
    ids = [f"s{i}" for i in range(100)]
    labels = [i % 7 for i in range(100)]
    subsets = [select_subset(ids, labels, n) for n in (7, 10, 35, 100)]
    assert [len(s) for s in subsets] == [7, 10, 35, 100]
    for small, large in pairwise(subsets):
        assert set(small) <= set(large)
    assert Counter(int(s[1:]) % 7 for s in subsets[2]) == dict.fromkeys(range(7), 5)
    turned = select_subset(ids[::-1], labels[::-1], 10)
    assert set(turned) == set(subsets[1])


def test_rows_without_images_and_a_folder_that_is_missing_are_refused(tmp_path: Path) -> None:
    """Each before anything is read of them."""
    spec, rows = load_plugins().datasets.get("folder"), datasets.Dataset.from_dict({"image": ["a"]})
    with refused("'image'"):
        disable_decoding(rows, "data")
    with refused("'label'"):
        load_split(DataSource(spec), rows=rows)
    missing = DataSource(spec, str(tmp_path / "nothing"))
    for read in (load_split, lambda source: check_data_dir(spec, source.data_dir)):
        with refused("nothing", "does not exist"):
            read(missing)


@pytest.mark.long
def test_a_corrupt_image_counts_as_wrong_and_costs_no_other(
    image_folder: Path, pipelines: dict[str, Path], tmp_path: Path
) -> None:
    (image_folder / "cat" / "3.png").write_bytes(b"\x89PNG and nothing more")
    arguments = [
        *("run", image_folder, "--backbone", pipelines["sd15"], "--strategy", "full"),
        *("--set", "draws=1", "--results", tmp_path / "results", "--json"),
    ]
    done = bench(*arguments)
    assert done.refuses("cat/3.png", code=3)
    assert done.json["failed_samples"] == 1 and done.json["dataset"]["n_samples"] == 8
    # The same command tries the failed sample again, and only that one.
    again = bench(*arguments)
    assert again.code == 3 and again.json["run_id"] == done.json["run_id"]
    assert "Resuming: 7 of 8" in again.err


def test_every_registered_dataset_says_its_sizes() -> None:
    for spec in load_plugins().datasets:
        assert spec.summary and (spec.name == "folder" or spec.scheme or spec.splits)


def test_images_have_the_groups_of_the_column_group_alone() -> None:
    for column, groups in (("group", ["x", None]), ("place", [None, None])):
        values: Any = {column: (["x", None], Value("string"))}
        split = load_split(
            DataSource(spec_of(rows_of([0, 1], ClassLabel(names=["a", "b"]), **values)))
        )
        assert [sample.group for sample in split.samples(split.sample_ids)] == groups


def test_a_file_does_not_change_the_run_ids_of_a_dataset_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner-name.v2").touch()
    spec = load_plugins().datasets.get("hf")
    source = DataSource(spec, parameters={"source": "owner/name.v2:config"})
    assert source.slug == "owner-name-v2"
