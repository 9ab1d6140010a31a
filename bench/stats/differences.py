"""What distinguishes runs, in the words of the options that set it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from bench.contracts.specs import provenance, training_group
from bench.store.documents import Manifest

Pair = list[Any]
Settings = dict[str, JsonValue]
"""The settings that change a run's numbers, by the names of their options."""


def run_settings(manifest: Manifest) -> Settings:
    """Return everything that changes a run's numbers, by the name of the option that sets it.

    Hashes are replaced by what they stand for, and what another setting says already is left out.
    """
    found: Settings = {}
    for name, value in _flat(manifest.identity.plain()):
        said = next((name.removeprefix(p) for p in _PREFIXES if name.startswith(p)), name)
        if name in _READERS:
            said, read = _READERS[name]
            value = read(manifest)
        if value is not None:
            found[said] = value
    return {**found, "made": found.get("made", "live")}


def differing(settings: Sequence[Settings]) -> list[Settings]:
    """Return of each run the settings that are not the same in all of them."""
    names = dict.fromkeys(name for one in settings for name in one)
    varied = [name for name in names if len({repr(one.get(name)) for one in settings}) > 1]
    return [{name: one[name] for name in varied if name in one} for one in settings]


def differences(a: Manifest, b: Manifest) -> dict[str, Pair]:
    """Return the settings that two runs do not share: name → [A's value, B's value].

    Of prompts, the first that differ are named, and the template where it differs.
    """
    of_a, of_b = differing([run_settings(m) for m in (a, b)])
    found: dict[str, Pair] = {name: [of_a.get(name), of_b.get(name)] for name in {**of_a, **of_b}}
    found.pop("prompts", None)
    if a.identity.prompts != b.identity.prompts:
        found = {"prompt": _first_prompts(a, b), **found}
        if a.config.template != b.config.template:
            found["template"] = [a.config.template, b.config.template]
    return found


def differing_identity(a: Manifest, b: Manifest) -> dict[str, Pair]:
    """Return what distinguishes the runs' identities: dotted name → [A's value, B's value]."""
    flat_a, flat_b = (dict(_flat(m.identity.plain())) for m in (a, b))
    names = dict.fromkeys([*flat_a, *flat_b])
    return {
        name: [flat_a.get(name), flat_b.get(name)]
        for name in names
        if flat_a.get(name) != flat_b.get(name)
    }


def _noise(manifest: Manifest) -> str | None:
    """Return the noise; that of the seed is called so, for the seed is a setting of its own."""
    noise, seed = manifest.identity.scoring.noise, f"seed {manifest.identity.seed}"
    return f"the seed's{noise.removeprefix(seed)}" if noise and noise.startswith(seed) else noise


def _weighting(manifest: Manifest) -> str | None:
    """Return the weighting; a file, or what was learned, as it was named, with its hash's start."""
    weighting = manifest.identity.scoring.weighting
    name, _, digest = (weighting or "").partition(" ")
    if name != "sha256":
        return weighting
    return f"{manifest.config.plain().get('weighting', 'a file')} ({digest[:8]})"


def _prompts(manifest: Manifest) -> str:
    """Return where the prompts are from: a file, a template, or else the first, with their hash."""
    template = manifest.config.template
    said = " · ".join(template) if isinstance(template, list) else template
    digest = manifest.identity.prompts[:8]
    own = f"“{manifest.prompts[0][0]}”… ({digest})" if manifest.prompts else digest
    return manifest.config.prompts or said or own


def _weights(manifest: Manifest) -> str | None:
    """Return where the weights are from, with the start of their hash."""
    fingerprint = manifest.identity.backbone.weights
    return f"{manifest.backbone.weights} ({fingerprint[:8]})" if fingerprint else None


def _source(manifest: Manifest) -> str:
    """Return the run that a replay replays."""
    return f"replayed from {manifest.replayed_from}"


# Name in the identity → what a reader calls it, and what it says.
_READERS: Mapping[str, tuple[str, Callable[[Manifest], Any]]] = {
    "version": ("identity version", lambda m: m.identity.version),
    "dataset.name": ("dataset", lambda m: m.identity.dataset.name),
    "dataset.fingerprint": ("data", lambda m: m.identity.dataset.fingerprint[:8]),
    "prompts": ("prompts", _prompts),
    "backbone.name": ("backbone", lambda m: m.backbone.name),
    "backbone.version": ("backbone version", lambda m: m.backbone.version),
    "backbone.weights": ("weights", _weights),
    "scoring.noise": ("noise", _noise),
    "scoring.weighting": ("weighting", _weighting),
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
