"""What distinguishes two runs, in the words of the options that set it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.contracts.training import provenance, training_group
from bench.store.documents import Manifest

Pair = list[Any]


def differing_settings(a: Manifest, b: Manifest) -> dict[str, Pair]:
    """Return what distinguishes the runs' identities: dotted name → [A's value, B's value]."""
    flat_a, flat_b = (dict(_flat(m.identity.plain())) for m in (a, b))
    names = dict.fromkeys([*flat_a, *flat_b])
    return {
        name: [flat_a.get(name), flat_b.get(name)]
        for name in names
        if flat_a.get(name) != flat_b.get(name)
    }


def differences(a: Manifest, b: Manifest) -> dict[str, Pair]:
    """Return `differing_settings` as a reader understands them: option → [A's value, B's value].

    Hashes are replaced by what they stand for, and what another one says already is left out.
    """
    found: dict[str, Pair] = {}
    for name, pair in differing_settings(a, b).items():
        if name in _READERS:
            said, read = _READERS[name]
            pair = [read(m) for m in (a, b)]
        elif name == "prompts":
            said, pair = "prompt", _first_prompts(a, b)
        else:
            said = next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), name)
        if pair[0] != pair[1]:
            found[said] = pair
    if a.config.template != b.config.template and "prompt" in found:
        found["template"] = [a.config.template, b.config.template]
    return found


def _noise(manifest: Manifest) -> str | None:
    """Return the noise, unless it is the seed's own: then the seed says it."""
    noise = manifest.identity.scoring.noise
    return "the seed's" if noise == f"seed {manifest.identity.seed}" else noise


def _weights(manifest: Manifest) -> str | None:
    """Return where the weights are from, with the start of their hash."""
    fingerprint = manifest.identity.backbone.weights
    return f"{manifest.backbone.weights} ({fingerprint[:8]})" if fingerprint else None


def _source(manifest: Manifest) -> str:
    """Return the run that a replay replays."""
    source = manifest.replayed_from
    return f"replayed from {source}" if source else "live"


_READERS: Mapping[str, tuple[str, Callable[[Manifest], Any]]] = {
    "dataset.fingerprint": ("data", lambda m: m.identity.dataset.fingerprint[:8]),
    "backbone.name": ("backbone", lambda m: m.backbone.name),
    "backbone.version": ("backbone version", lambda m: m.backbone.version),
    "backbone.weights": ("weights", _weights),
    "scoring.noise": ("noise", _noise),
    "scoring.draw_plan": ("plan", lambda m: m.identity.scoring.draw_plan),
    "strategy.name": ("strategy", lambda m: m.strategy.name),
    "strategy.version": ("strategy version", lambda m: m.strategy.version),
    "replayed.run_id": ("made", _source),
    "replayed.identity": ("made", _source),
}
_PREFIXES = ("backbone.parameters.", "backbone.", "scoring.", "strategy.params.", "dataset.")


def _first_prompts(a: Manifest, b: Manifest) -> Pair:
    """Return the first texts in which two runs with other prompts differ, or their numbers."""
    for (one, of_one), (other, of_other) in zip(a.prompts, b.prompts, strict=False):
        if (one, of_one) != (other, of_other):
            return [one, other]
    return [f"{len(m.prompts)} prompts" for m in (a, b)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found += _flat(inner, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", inner))
    return found


def training_warning(a: Manifest, b: Manifest) -> str | None:
    """Return what to say where two backbones may have seen different data."""
    sides = [
        training_group(m.backbone.trained_on, m.identity.backbone.weights or m.backbone.name)
        for m in (a, b)
    ]
    if sides[0] == sides[1]:
        return None
    words = [provenance(m.backbone.trained_on) for m in (a, b)]
    return f"Their backbones may have seen different data: A is {words[0]}, B is {words[1]}."
