"""A class without the contract's base is used as one that has it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from helpers.refusals import refused

from bench.contracts.backbone import Backbone, Classifier, Denoiser
from bench.contracts.strategy import ErrorTable, Problem, Session, Strategy
from bench.discovery.targets import offers, with_defaults
from bench.engine.asking import CheckedStrategy

PROBLEM = Problem(np.arange(3), np.arange(4), np.ones(4))


class Duck:
    """Has what is required, one ability of its own, one that is switched off, and one property."""

    draws = 4
    at_least = None

    def start(self, problem: Problem) -> Any:
        return ErrorTable(problem)

    def at_most(self, problem: Problem) -> int:
        return 7

    @property
    def network(self) -> Any:
        raise AssertionError("it was evaluated")

    @staticmethod
    def token_counts(weights: Any, texts: Any) -> tuple[list[int], int]:
        return [len(text) for text in texts], 77


class Based(Strategy):
    draws = 4

    def start(self, problem: Problem) -> Session:
        raise NotImplementedError


def test_what_an_object_lacks_is_the_contracts() -> None:
    strategy: Strategy = with_defaults(Duck(), Strategy)
    assert strategy.at_most(PROBLEM) == 7 and strategy.at_least(PROBLEM) is None
    assert strategy.learn([strategy.statistics(PROBLEM, np.ones((3, 4)), None)]) == {}
    assert not strategy.linearises and dict(strategy.settled) == {}
    assert isinstance(strategy.start(PROBLEM), ErrorTable)
    assert pickle.loads(pickle.dumps(strategy)).at_most(PROBLEM) == 7  # as Ray sends it
    with refused("'stop'", kind=AttributeError):
        _ = strategy.stop  # type: ignore[attr-defined]
    for method in ("encode_images", "encode_prompts", "denoise"):  # required, so no default
        with refused(method, kind=AttributeError):
            getattr(with_defaults(Duck(), Denoiser), method)


def test_what_a_class_lacks_is_the_contracts() -> None:
    kind: type[Backbone] = with_defaults(Duck, Backbone)
    assert kind.token_counts(None, ["a", "to"]) == ([1, 2], 77)
    assert kind.memory(None, "float32") is None
    assert kind.level_table(None) is None
    factory: type[Backbone] = with_defaults(lambda *arguments: Duck(), Backbone)
    assert factory.evaluation_flops(None) is None


def test_a_default_may_be_none() -> None:
    class Named:
        title = None

    assert with_defaults(object(), Named).title is None


def test_with_the_base_nothing_is_wrapped() -> None:
    based = Based()
    assert with_defaults(based, Strategy) is based and with_defaults(Based, Strategy) is Based
    assert based.at_most(PROBLEM) == 12
    assert not CheckedStrategy(based, "x").bounds_cost and CheckedStrategy(Duck(), "x").bounds_cost


def test_an_ability_is_declared_not_tried() -> None:
    assert offers(Duck, Backbone.token_counts) and offers(Duck(), Strategy.at_most)
    assert not offers(Duck(), Strategy.at_least), "None is no method"
    assert not offers(Duck(), Strategy.check) and not offers(Based, Strategy.at_most)
    for default in (Denoiser.posterior, Denoiser.encode_null, Backbone.check_weights):
        assert not offers(Denoiser, default) and not offers(Duck, default)


def test_a_required_method_that_is_missing_is_named() -> None:
    class Empty(Classifier):
        pass

    with refused("score", kind=TypeError):
        Empty()  # type: ignore[abstract]
