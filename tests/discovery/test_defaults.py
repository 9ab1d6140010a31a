"""A class without the contract's base is used as one that has it; its facts are checked."""

import pickle
import sys
from inspect import signature
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused

from bench.contracts.backbone import Backbone, Classifier, Denoiser
from bench.contracts.specs import BackboneSpec
from bench.contracts.strategy import ErrorTable, Problem, Session, Strategy
from bench.discovery.backbones import fact
from bench.discovery.targets import offers, with_defaults
from bench.engine.asking import CheckedStrategy
from bench.errors import PluginError, UserError

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


FACTS = [name for name, member in vars(Backbone).items() if isinstance(member, staticmethod)]


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> BackboneSpec:
    module = ModuleType("bench_strange")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.Strange = type("Strange", (), {})  # type: ignore[attr-defined]  # a module made here
    return BackboneSpec(name="strange", target="bench_strange:Strange")


def ask(spec: BackboneSpec, name: str, value: Any) -> Any:
    """Return the fact of a class whose method returns `value`, or raises it."""

    def method(*_: Any, **__: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    setattr(sys.modules["bench_strange"].Strange, name, staticmethod(method))
    contract: Any = getattr(Backbone, name)
    required = [p for p in signature(contract).parameters.values() if p.default is p.empty]
    positional = [None for p in required if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = {p.name: None for p in required if p.kind is p.KEYWORD_ONLY}
    return fact(spec, contract, *positional, **keywords)


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("value", [object(), "many", -1.0, float("nan"), ([1.5], 2), [[1], 2]])
def test_a_fact_of_another_type_names_the_method(name: str, value: Any, spec: BackboneSpec) -> None:
    if name == "encoder_key" and isinstance(value, str):
        assert ask(spec, name, value) == value
        return
    with refused("strange", f"{name}()", kind=PluginError):
        ask(spec, name, value)


@pytest.mark.parametrize("name", FACTS)
def test_what_a_class_raises_names_the_method_unless_it_is_for_the_user(
    name: str, spec: BackboneSpec
) -> None:
    with refused(f"{name}()", kind=PluginError):
        ask(spec, name, ValueError("no"))
    with refused("other weights"):
        ask(spec, name, UserError("choose other weights"))
