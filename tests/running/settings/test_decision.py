"""The strategy of a run: which one, and with which parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.running.parts.decision import backbone_params, find_strategy
from bench.running.settings import RunConfig

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


def test_a_parameter_that_makes_no_sense_is_refused() -> None:
    with refused("draws"):
        find_strategy(settings(strategy="full", params={"draws": 10**9}), BACKBONE)
