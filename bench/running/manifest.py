"""A run's identity, made of one entry per part of its content, its manifest, and its folder.

A setting whose declaration has no `identity` has no entry: where a run takes place (device, batch
size, executor), how many of its images are asked for (limit, shard), and what is kept of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.contracts.backbone import Backbone, Likelihood
from bench.discovery.backbones import fact, has_own
from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
from bench.errors import UserError
from bench.inputs.items import ItemTable
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.inputs.subsets import select_subset
from bench.machine.environment import environment
from bench.running.content import Content, PreparedRun
from bench.running.parts.data import data_identity
from bench.running.parts.machine import all_precisions
from bench.running.parts.model import backbone_info, model_identity
from bench.running.parts.settings import Names, RunConfig
from bench.running.parts.texts import null_warning, texts_identity
from bench.store.folder import is_begun, shard_folder
from bench.store.formats import identity as ids
from bench.store.formats.documents import (
    MANIFEST_FORMAT,
    Data,
    Items,
    Manifest,
    ShardPart,
    StoredConfig,
)
from bench.store.formats.fields import without_none
from bench.store.formats.identity import BackboneIdentity, CalibratedOn, Identity, LearnedFrom


def prepared_run(
    content: Content,
    samples: Sequence[str] | None = None,
    calibrated: CalibratedOn | None = None,
) -> PreparedRun:
    """Return the run of a content whose images were read, with a new manifest.

    `samples` are the ids to score; None for those that the settings select. `calibrated` is the
    calibration that chose the strategy of a stated risk.
    """
    config, split = content.config, content.split
    if content.absent is not None:
        raise content.absent
    assert split is not None, "asked without images"
    manifest = make_manifest(content, split, samples, calibrated)
    folder = Path(config.results, manifest.run_id)
    if (shard := config.shard) is not None:
        folder = shard_folder(folder, shard.index, shard.count)
    if (note := other_precision_note(content, manifest)) is not None:
        content = replace(content, warnings=(*content.warnings, note))
    return PreparedRun(content=content, split=split, manifest=manifest, folder=folder)


def make_manifest(
    content: Content,
    split: Split,
    sample_ids: Sequence[str] | None = None,
    calibrated: CalibratedOn | None = None,
) -> Manifest:
    """Return the manifest of a run on the images of a split.

    `sample_ids` are the images asked for, None for all; `--limit` and `--shard` apply to both.
    """
    names, prompts = content.names, content.prompts
    identity, parents = identity_of(content, split, calibrated), prompts.parents
    samples, part = _samples(content.config, split, sample_ids)
    cost = content.problems()[0][0].linearisation_cost if names.strategy.linearises else None
    unfair = null_warning(content.config.subtract_null, names.backbone, split.items)
    return Manifest(
        format=MANIFEST_FORMAT,
        run_id=ids.run_id(split.name, names.source.name, identity.strategy.name, identity),
        identity=identity,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=StoredConfig(**names.recorded_settings()),
        dataset=Data(
            name=split.name, version=split.version, split=split.split, n_total=len(split.sample_ids)
        ),
        backbone=backbone_info(
            names.source, content.weights, names.precision.dtype, content.trained_on
        ),
        strategy=identity.strategy,
        classes=list(split.classes),
        prompts=[] if split.items else prompts.pairs,
        environment=_environment(names),
        samples=samples,
        **without_none(
            parents=None if parents is None else list(parents),
            part=part,
            groups=split.hash_of_groups,
            pairs_averaged=identity.scoring.antithetic or None,
            linearisation_cost=cost,
            evaluation_flop=evaluation_flops(content),
            warnings=[unfair] if unfair else None,
            items=describe_items(names, split.items, prompts) if split.items else None,
        ),
    )


def identity_of(content: Content, split: Split, calibrated: CalibratedOn | None) -> Identity:
    """Return the identity of a run: all of its content that changes a number."""
    learned_from = None
    if (fit := content.learns_from) is not None:
        count = len(fit.sample_ids)
        learned_from = LearnedFrom(split=fit.split, fingerprint=fit.fingerprint, images=count)
    return Identity(
        version=ids.IDENTITY_VERSION,
        dataset=data_identity(content.names.dataset, split),
        backbone=_backbone_identity(content),
        scoring=content.kind.scoring(content),
        strategy=content.names.decider.identity,
        seed=content.config.seed,
        **texts_identity(content.prompts, split.items),
        **content.config.in_identity("run"),
        **without_none(
            learned_from=learned_from,
            candidates=content.shortlist and content.shortlist.source,
            calibrated=calibrated,
        ),
    )


def _backbone_identity(content: Content) -> BackboneIdentity:
    names, weights = content.names, content.weights
    half = names.precision.dtype != "float32"
    return BackboneIdentity(
        **model_identity(names.backbone, weights, names.backbone_parameters),
        **names.precision.identity(names.backbone, weights),
        **(content.config.in_identity("half") if half else {}),
    )


def _environment(names: Names) -> dict[str, object]:
    """Return the machine, and the versions and code of the distributions behind the names."""
    plugins = load_plugins()
    owners = [  # None for an unregistered part
        plugins.datasets.owner(names.dataset.name),
        plugins.backbones.owner(names.backbone.name),
        plugins.strategies.owner(names.decider.spec.name),
        *([plugins.views.owner(names.views.spec.name)] if names.views else []),
    ]
    return environment(plugins.versions(), source_hashes(plugins, owners))


def other_precision_note(content: Content, manifest: Manifest) -> str | None:
    """Return that a run is not stored, but the same one in another precision is; None if not so."""
    results, config = Path(content.config.results), content.config
    if config.fresh or is_begun(results / manifest.run_id):
        return None
    names = manifest.dataset.name, content.names.source.name, manifest.strategy.name
    for precision in all_precisions():
        variant = content.naming(precision=precision)
        identity = manifest.identity.model_copy(update={"backbone": _backbone_identity(variant)})
        run_id = ids.run_id(*names, identity)
        if is_begun(results / run_id):
            return (
                f"{run_id} is this run in another precision: {precision.options()} continues it."
                f" Without that, it starts anew in {content.names.precision}."
            )
    return None


def evaluation_flops(content: Content) -> float | None:
    """Return the floating-point operations per evaluation, declared or counted; None if unknown."""
    spec, config = content.names.backbone, content.config
    if content.names.source.weights is None and config.resolution is None and spec.flops:
        return spec.flops
    if content.weights is None:
        return None
    if has_own(spec, Likelihood.cell_flops):
        sizes = [] if content.split is None else content.split.some_sizes()
        texts, parameters = content.prompts.texts, content.names.backbone_parameters
        return fact(spec, Likelihood.cell_flops, content.weights, texts, sizes, **parameters)
    return fact(spec, Backbone.evaluation_flops, content.weights, config.resolution)


def _samples(
    config: RunConfig, split: Split, sample_ids: Sequence[str] | None
) -> tuple[list[str], ShardPart | None]:
    """Return the ids asked for and, with `--shard`, the shard's place in the whole run."""
    all_ids = split.sample_ids if sample_ids is None else sample_ids
    label_of = dict(zip(split.sample_ids, split.labels, strict=True))
    labels = [label_of[sample_id] for sample_id in all_ids]
    shard = config.shard
    samples = select_subset(all_ids, labels, config.limit, shard)
    if shard is None:
        return samples, None
    n_asked = min(config.limit or len(all_ids), len(all_ids))
    if not samples:
        raise UserError(f"--shard {shard}: there are only {n_asked} images, none for this shard.")
    in_shard = set(samples)
    places = [place for place, name in enumerate(split.sample_ids) if name in in_shard]
    return samples, ShardPart(index=shard.index, count=shard.count, asked=n_asked, places=places)


def describe_items(names: Names, items: ItemTable, pool: Prompts) -> Items:
    """Return the manifest's entry of the items."""
    chance = items.chance
    both = {"image_chance": chance.image, "group_chance": chance.group}
    return Items(
        images=items.shapes[0][0],
        texts=max(texts for _, texts in items.shapes),
        pool=len(pool.texts),
        chance=chance.answer,
        images_compared=names.strategy.same_draws,
        **(both if chance.image is not None else {}),
    )
