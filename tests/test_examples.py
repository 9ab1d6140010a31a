"""Every strategy, metric and table of levels begins with an example, and the examples are true."""

import doctest
from importlib import import_module
from inspect import getmembers, getmodule, isclass, isfunction
from types import ModuleType
from typing import Any

import pytest

MODULES = [
    "bench.contracts.levels",
    "bench_plugins.metrics.measures",
    "bench_plugins.metrics.recalls",
    *(f"bench_plugins.strategies.{name}" for name in ("elimination", "full", "hierarchy")),
    *(f"bench_plugins.strategies.{name}" for name in ("race", "screen_race")),
]


def is_public(value: Any, module: ModuleType) -> bool:
    """Return whether it is a registered class, or a function that makes levels."""
    own = getmodule(value) is module
    named = isfunction(value) and value.__name__.endswith("_levels")
    return own and (named or (isclass(value) and "spec" in vars(value)))


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_has_a_true_example(name: str) -> None:
    module = import_module(name)
    public = [value for _, value in getmembers(module) if is_public(value, module)]
    assert public and all(">>>" in str(value.__doc__) for value in public)
    assert doctest.testmod(module).failed == 0
