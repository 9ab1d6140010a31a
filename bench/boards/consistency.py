"""Whether a manifest agrees with its own identity, and with what is registered here.

Everybody can write a manifest. What follows from something else is computed again; the rest is
taken on trust, and `TRUST` says what that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.contracts.specs import UNKNOWN, BackboneSpec
from bench.discovery.loading import load_plugins
from bench.errors import UserError, quoted
from bench.inputs.data import load_classes
from bench.store.documents import Manifest
from bench.store.folder import list_runs, read_manifest
from bench.store.identity import digest, prompts_digest

TRUST = (
    "Taken on trust: what the records say of each image, the hashes of data and weights, times and"
    " memory; of data, classes and backbones that are not registered here, what the run says of"
    " them; and all of reported results. The other figures were computed again."
)


class Totals:
    """How many images the splits have that published runs are on.

    Args:
        published: the folder of published results.
    """

    def __init__(self, published: Path) -> None:
        self._totals: dict[str, dict[str, int]] = {}
        for path in list_runs(published):
            with suppress(UserError):
                manifest = read_manifest(path)
                if not manifest.private_data:
                    runs = self._totals.setdefault(digest(manifest.identity.dataset.plain()), {})
                    runs[manifest.run_id] = manifest.dataset.n_total

    def of_others(self, manifest: Manifest) -> set[int]:
        """Return what other runs on the same images say; images are the same by fingerprint."""
        runs = self._totals.get(digest(manifest.identity.dataset.plain()), {})
        return {total for run_id, total in runs.items() if run_id != manifest.run_id}

    def problem(self, manifest: Manifest) -> str | None:
        """Return what is wrong with the number of images that a run says its split has."""
        data, datasets = manifest.identity.dataset, load_plugins().datasets
        total, others = manifest.dataset.n_total, self.of_others(manifest)
        if others - {total}:
            theirs = " and ".join(f"{other:,}" for other in sorted(others))
            return f"its n_total is {total:,}, and other runs on the same images have {theirs}"
        if others or data.name not in datasets:
            return None
        spec = datasets.get(data.name)
        size = spec.splits.get(data.split) if spec.version == data.version else None
        if size in (None, total):
            return None
        return f"its n_total is {total:,}, and {data.name}/{data.split} has {size:,}"


def contradictions(manifest: Manifest, totals: Totals) -> Iterator[str]:
    """Yield what a manifest says otherwise than its identity, other runs or registered specs."""
    identity, data, backbone = manifest.identity, manifest.dataset, manifest.backbone
    replayed = identity.replayed.run_id if identity.replayed else None
    pairs = {
        "dataset's version": (data.version, identity.dataset.version),
        "split": (data.split, identity.dataset.split),
        "backbone's version": (backbone.version, identity.backbone.version),
        "dtype": (backbone.dtype, identity.backbone.dtype),
        "strategy": (manifest.strategy.plain(), identity.strategy.plain()),
        "replayed run": (manifest.replayed_from, replayed),
    }
    if manifest.items is None:
        pairs["prompts' hash"] = (prompts_digest(manifest.prompts), identity.prompts)
    for name, (stated, hashed) in pairs.items():
        if stated != hashed:
            yield f"its {name} is {quoted(stated)}, by its identity {quoted(hashed)}"
    if len(set(manifest.samples)) < len(manifest.samples):
        yield "it names a sample twice"
    if len(manifest.samples) > data.n_total:
        yield f"it has {len(manifest.samples):,} samples of {data.n_total:,} images"
    if not manifest.private_data:
        if problem := totals.problem(manifest):
            yield problem
        yield from _of_classes(manifest)
    backbones = load_plugins().backbones
    if identity.backbone.name in backbones:
        spec = backbones.get(identity.backbone.name)
        if spec.version == identity.backbone.version:
            yield from _of_backbone(manifest, spec)


def _of_classes(manifest: Manifest) -> Iterator[str]:
    datasets, identity = load_plugins().datasets, manifest.identity.dataset
    if identity.name not in datasets:
        return
    spec = datasets.get(identity.name)
    if spec.version != identity.version:
        return
    if spec.classes is None or manifest.config.plain().get("class_names"):
        return
    registered = load_classes(spec).names
    if len(registered) != len(manifest.classes):
        yield f"it has {len(manifest.classes)} classes, and {identity.name} has {len(registered)}"
        return
    for number, (stated, expected) in enumerate(zip(manifest.classes, registered, strict=True)):
        if stated != expected:
            yield (
                f"its class {number} is {quoted(stated)}, and that of {identity.name} is"
                f" {quoted(expected)}"
            )
            return


def _of_backbone(manifest: Manifest, spec: BackboneSpec) -> Iterator[str]:
    learned, stated = manifest.identity.learned_from, manifest.backbone.trained_on
    if manifest.config.weights is not None:
        expected: str | None = UNKNOWN
    elif learned is not None:
        expected = f"{manifest.dataset.name}/{learned.split}"
    else:
        expected = spec.trained_on
    weighting = str(manifest.config.plain().get("weighting"))
    more = manifest.identity.candidates is not None or weighting.startswith("learned")
    if more and (expected is None or str(stated).startswith(f"{expected} + ")):
        return  # what the candidates or the weights were learned from; another run says what it is
    if stated != expected:
        yield f"its trained_on is {quoted(stated)}, by backbone {spec.name} {quoted(expected)}"
