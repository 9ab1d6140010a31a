"""The settings of a run in words, and those that differ among runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry, SpecT
from bench.store.documents import Manifest


def run_settings(manifest: Manifest) -> dict[str, Any]:
    """Return everything that changes a run's numbers, by the name of the option that sets it."""
    identity, config = manifest.identity, manifest.config
    scoring = identity.scoring.plain()
    if scoring.get("noise") == f"seed {identity.seed}":  # the seed says it already
        del scoring["noise"]
    return {
        "data": f"{identity.dataset.fingerprint[:8]}, version {identity.dataset.version}",
        "prompts": config.prompts or _said(config.template) or identity.prompts[:8],
        "weights": manifest.backbone.weights,
        "dtype": identity.backbone.dtype,
        **identity.backbone.parameters,
        **{"plan" if name == "draw_plan" else name: value for name, value in scoring.items()},
        "seed": identity.seed,
        **manifest.strategy.params,
        "made": "replayed" if manifest.replayed_from else "live",
    }


def differing(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each run the settings that are not the same in all of them."""
    names = dict.fromkeys(name for one in settings for name in one)
    varied = [name for name in names if len({repr(one.get(name)) for one in settings}) > 1]
    return [{name: one[name] for name in varied if name in one} for one in settings]


def chosen(strategy: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are not at their default; of an unknown strategy, all."""
    return _chosen(load_plugins().strategies, strategy, params)


def chosen_of_backbone(backbone: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backbone's parameters that are not at their default; of an unknown one, all."""
    return _chosen(load_plugins().backbones, backbone, params)


def _chosen(registry: Registry[SpecT], name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    defaults = registry.get(name).parameters if name in registry else {}
    return {
        name: value
        for name, value in params.items()
        if name not in defaults or defaults[name].default != _as_given(value)
    }


def _as_given(value: Any) -> Any:
    """Return a value as a plugin writes it: JSON knows no tuples."""
    return tuple(value) if isinstance(value, list) else value


def _said(template: str | list[str] | None) -> str | None:
    return " · ".join(template) if isinstance(template, list) else template
