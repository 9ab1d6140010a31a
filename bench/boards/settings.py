"""The parameters that a run does not have at their default."""

from __future__ import annotations

from typing import Any

from bench.contracts.parameters import Parameters
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry, SpecT


def chosen(strategy: str, params: Parameters) -> Parameters:
    """Return the parameters that are not at their default; of an unknown strategy, all."""
    return _chosen(load_plugins().strategies, strategy, params)


def chosen_of_backbone(backbone: str, params: Parameters) -> Parameters:
    """Return a backbone's parameters that are not at their default; of an unknown one, all."""
    return _chosen(load_plugins().backbones, backbone, params)


def _chosen(registry: Registry[SpecT], name: str, params: Parameters) -> Parameters:
    defaults = registry.get(name).parameters if name in registry else {}
    return {
        name: value
        for name, value in params.items()
        if name not in defaults or defaults[name].default != _as_given(value)
    }


def _as_given(value: Any) -> Any:
    """Return a value as a plugin writes it: JSON knows no tuples."""
    return tuple(value) if isinstance(value, list) else value
