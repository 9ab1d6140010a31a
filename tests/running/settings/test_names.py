"""Names of registered things, collections among them, and paths in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.running.parts.data import expand_datasets, is_path, registered


def test_a_slash_makes_a_path() -> None:
    assert all(map(is_path, ("./x", "a/b", "a\\b", ".", "..")))
    assert not any(map(is_path, ("x", "hf:owner", "...")))


def test_a_file_of_that_name_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with refused("./photos"):
        registered(load_plugins().datasets, "photos")
    with refused("'digits'"):
        registered(load_plugins().datasets, "digit")


def test_one_spec_of_a_kind_is_the_default() -> None:
    assert load_plugins().strategies.require_default().name == "race"


def test_names_and_collections_are_those_of_registered_datasets() -> None:
    for collection in load_plugins().collections:
        assert collection.summary
        assert all(name in load_plugins().datasets for name in collection.datasets)
    names = expand_datasets(["digits", "@ood-imagenet", "imagenet-v2"])
    assert names[:2] == ["digits", "imagenet-v2"] and len(names) == len(set(names)) == 5
    with refused("'aerail'", "'aerial'"):
        expand_datasets(["@aerail"])
    assert "is a collection of 8 datasets" in bench("prompts", "@aerial").err
    rows = bench("list", "collections", "--json").json
    assert {row["name"] for row in rows} >= {"li2023", "clark2023", "aerial", "ood-imagenet"}
