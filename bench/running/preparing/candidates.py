"""Candidates: the best classes of each image by a stored run, among which another one decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.errors import UserError, quoted
from bench.inputs.split import Split
from bench.inputs.subsets import limited, parse_shard
from bench.running.resolve import Resolved
from bench.store.documents import Manifest
from bench.store.folder import asked_records, find_run, read_manifest
from bench.store.identity import Candidates, digest


@dataclass(frozen=True)
class Shortlist:
    """The candidates of every image asked for: sample id → class indices, best first."""

    source: Candidates  # the run that they are from, and how many
    trained_on: str | None  # training data of that run's backbone
    classes: Mapping[str, tuple[int, ...]]


def find_candidates(resolved: Resolved, split: Split | None) -> Shortlist | None:
    """Return the candidates that `--candidates-from` names; None where all classes are scored.

    Raises:
        UserError: the run is of other images or classes, lacks an image, or keeps too few classes.
    """
    config = resolved.config
    if config.candidates_from is None or split is None:
        return None
    path = find_run(config.candidates_from, config.results)
    manifest, option = read_manifest(path), f"--candidates-from {config.candidates_from}"
    _check_alike(resolved, manifest, split, option)
    kept = {r["sample_id"]: [entry[0] for entry in r["top"]] for r in asked_records(path, manifest)}
    shard = parse_shard(config.shard) if config.shard else None
    wanted = limited(split.sample_ids, split.labels, config.limit, shard)
    if missing := [sample_id for sample_id in wanted if not kept.get(sample_id)]:
        raise UserError(
            f"{option}: it has not decided {len(missing)} of {len(wanted)} images, such as"
            f" {quoted(missing[0])}."
        )
    fewest = min(len(kept[sample_id]) for sample_id in wanted)
    if fewest < config.top:
        raise UserError(
            f"--top {config.top}: {manifest.run_id} keeps the {fewest} best classes of an image."
        )
    source = Candidates(run_id=manifest.run_id, identity=digest(manifest.identity), top=config.top)
    classes = {sample_id: tuple(kept[sample_id][: config.top]) for sample_id in wanted}
    return Shortlist(source, manifest.backbone.trained_on, classes)


def _check_alike(resolved: Resolved, manifest: Manifest, split: Split, option: str) -> None:
    if split.items is not None or manifest.items is not None:
        raise UserError(f"{option}: items have texts of their own, and no classes to choose from.")
    if manifest.identity.dataset.fingerprint != split.fingerprint:
        there = f"{manifest.dataset.name}/{manifest.dataset.split}"
        raise UserError(
            f"{option}: it is about other images, {there}, than {split.name}/{split.split}."
        )
    if list(manifest.classes) != list(split.classes):
        raise UserError(f"{option}: the names of its {len(manifest.classes)} classes differ.")
    if resolved.config.top >= len(split.classes):
        raise UserError(
            f"--top {resolved.config.top}: there are {len(split.classes)} classes, so that all of"
            " them would be scored. Leave --candidates-from out."
        )
    if resolved.strategy.linearises:
        raise UserError(
            f"{option}: strategy {resolved.decider.spec.name!r} linearises at a mixture of prompts"
            " that all images share. `race` needs no gradients."
        )
