"""Settings in which runs differ, by the names of their options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from bench.contracts.specs import provenance, training_group
from bench.store.documents import Manifest

Pair = list[Any]
Settings = dict[str, JsonValue]
"""Settings that affect a run's results, by the names of their options."""

# Dotted name in the identity → name of the setting. All others only lose their prefix.
_NAMES = {
    "version": "identity version",
    "dataset.name": "dataset",
    "dataset.fingerprint": "data",
    "backbone.name": "backbone",
    "backbone.version": "backbone version",
    "scoring.draw_plan": "plan",
    "strategy.name": "strategy",
    "strategy.version": "strategy version",
    "replayed.run_id": "made",
    "replayed.identity": "made",
}
_PREFIXES = ("backbone.parameters.", "backbone.", "scoring.", "strategy.params.", "dataset.")


def run_settings(manifest: Manifest) -> Settings:
    """Return the settings that affect a run's results, with hashes replaced by readable values.

    `made` is "live", or the run that this one was replayed from.
    """
    settings: Settings = {}
    readable = _readable(manifest)
    for place, value in _flat(manifest.identity.plain()):
        prefix = next((prefix for prefix in _PREFIXES if place.startswith(prefix)), "")
        shown = readable.get(place, value)
        if shown is not None and not re.fullmatch("[0-9a-f]{64}", str(shown)):  # a SHA-256
            settings[_NAMES.get(place, place.removeprefix(prefix))] = shown
    return {**settings, "made": settings.get("made", "live")}


def _readable(manifest: Manifest) -> Settings:
    """Return readable values by dotted name in the identity; None to keep the stored value out."""
    identity, config = manifest.identity, manifest.config
    template = config.template
    joined = " · ".join(template) if isinstance(template, list) else template
    digest = identity.prompts[:8]
    first = f"“{manifest.prompts[0][0]}”… ({digest})" if manifest.prompts else digest
    seed, noise = f"seed {identity.seed}", identity.scoring.noise
    if noise and noise.startswith(seed):
        noise = f"the seed's{noise.removeprefix(seed)}"
    weighting, weights = identity.scoring.weighting, identity.backbone.weights
    kind, _, weighting_digest = (weighting or "").partition(" ")
    if kind == "sha256":
        weighting = f"{config.plain().get('weighting', 'a file')} ({weighting_digest[:8]})"
    source = f"replayed from {manifest.replayed_from}"
    return {
        "dataset.fingerprint": identity.dataset.fingerprint[:8],
        "prompts": config.prompts or joined or first,
        "backbone.weights": f"{manifest.backbone.weights} ({weights[:8]})" if weights else None,
        "scoring.noise": noise,
        "scoring.weighting": weighting,
        "replayed.run_id": source,
        "replayed.identity": source,
    }


def differing(settings: Sequence[Settings]) -> list[Settings]:
    """Return the settings of each run, without those that are equal in all runs."""
    names = dict.fromkeys(name for run in settings for name in run)
    varied = [name for name in names if len({repr(run.get(name)) for run in settings}) > 1]
    return [{name: run[name] for name in varied if name in run} for run in settings]


def differences(a: Manifest, b: Manifest) -> dict[str, Pair]:
    """Return the settings in which two runs differ: name → [A's value, B's value].

    If the prompts differ, `prompt` has the first pair of different texts. Of a classifier and
    another kind of model, only settings that both have are compared.
    """
    pairs = _pairs(run_settings(a), run_settings(b))
    if a.classifier != b.classifier:
        kinds = ["a classifier" if m.classifier else "scored on draws" for m in (a, b)]
        pairs = {"kind of model": kinds} | {k: v for k, v in pairs.items() if None not in v}
    pairs.pop("prompts", None)
    if a.identity.prompts != b.identity.prompts:
        prompts = zip(a.prompts, b.prompts, strict=False)
        first = next(([of_a[0], of_b[0]] for of_a, of_b in prompts if of_a != of_b), None)
        pairs = {"prompt": first or [f"{len(m.prompts)} prompts" for m in (a, b)], **pairs}
        if a.config.template != b.config.template:
            pairs["template"] = [a.config.template, b.config.template]
    return pairs


def differing_identity(a: Manifest, b: Manifest) -> dict[str, Pair]:
    """Return the parts of the identity that differ: dotted name → [A's value, B's value]."""
    return _pairs(*(dict(_flat(m.identity.plain())) for m in (a, b)))


def _pairs(*settings: Settings) -> dict[str, Pair]:
    a, b = differing(settings)
    return {name: [a.get(name), b.get(name)] for name in {**a, **b}}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with their dotted names."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def training_warning(a: Manifest, b: Manifest) -> str | None:
    """Return a warning if two backbones may have seen different training data, otherwise None."""
    groups = [
        training_group(m.backbone.trained_on, m.identity.backbone.weights or m.backbone.name)
        for m in (a, b)
    ]
    if groups[0] == groups[1]:
        return None
    origins = [provenance(m.backbone.trained_on) for m in (a, b)]
    return (
        f"Their backbones may have seen different training data: A is {origins[0]}, B is"
        f" {origins[1]}."
    )
