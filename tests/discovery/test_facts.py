"""Facts that the class of a backbone reports have the types that the contract declares."""

from __future__ import annotations

import sys
from inspect import signature
from types import ModuleType
from typing import Any

import pytest
from helpers.refusals import refused

from bench.contracts.backbone import Backbone
from bench.contracts.specs import BackboneSpec
from bench.discovery.backbones import fact
from bench.errors import PluginError, UserError

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
