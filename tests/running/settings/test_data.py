"""Names of datasets and collections."""

from __future__ import annotations

from helpers.command import bench
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.running.parts.data import expand_datasets


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
