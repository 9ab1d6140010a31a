"""Names of registered things, collections and paths; and which of several values decides."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.running.parts.data import expand_datasets, registered
from bench.running.parts.decision import backbone_params, find_strategy
from bench.running.parts.settings import RunConfig


def test_a_file_of_that_name_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with refused("./photos"):
        registered(load_plugins().datasets, "photos")
    with refused("'digits'"):
        registered(load_plugins().datasets, "digit")


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


PLUGINS = load_plugins()
BACKBONE = PLUGINS.backbones.get("tiny-digits")


def settings(**values: Any) -> RunConfig:
    return RunConfig(dataset="-", **values)


def test_option_over_backbone_over_default() -> None:
    bare = replace(BACKBONE, strategy=None, strategy_parameters={}, draws=None)
    own = replace(bare, strategy="uniform", strategy_parameters={"draws": 7})
    assert find_strategy(settings(), bare).spec.name == "race"
    assert find_strategy(settings(), replace(bare, draws=1)).spec.name == "full"
    found = find_strategy(settings(), own)
    assert (found.spec.name, found.parameters["draws"]) == ("uniform", 7)
    found = find_strategy(settings(strategy="full", params={"draws": "3"}), own)
    assert (found.spec.name, found.parameters["draws"], found.strategy.draws) == ("full", 3, 3)


def test_a_parameter_of_the_backbone_is_none_of_the_strategy_s() -> None:
    own = dict.fromkeys(BACKBONE.parameters, 1)
    both = settings(params={**own, "draws": 4})
    assert backbone_params(both, BACKBONE, PLUGINS.strategies.get("full")).keys() == own.keys()
