"""Make the manifest of a run: its identity, settings, samples and environment."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.contracts.backbone import Backbone, Likelihood
from bench.discovery.backbones import fact, has_own, recorded_parameters
from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
from bench.errors import UserError
from bench.inputs.items import ItemTable
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.inputs.subsets import select_subset
from bench.inputs.weights import InMemory
from bench.machine.environment import environment
from bench.running.kinds.denoiser import linearisation_cost
from bench.running.parts.precision import all_precisions
from bench.running.question import Resolved, RunQuestion
from bench.running.settings import RunConfig, identity_settings
from bench.running.settings.declaration import IdentityRole
from bench.store import identity as ids
from bench.store.documents import (
    MANIFEST_FORMAT,
    BackboneInfo,
    Data,
    Items,
    Manifest,
    ShardPart,
    StoredConfig,
    Sweep,
)
from bench.store.fields import without_none
from bench.store.folder import is_begun
from bench.store.identity import BackboneIdentity, CalibratedOn, DataIdentity, Identity, LearnedFrom


def make_manifest(
    question: RunQuestion,
    split: Split,
    sample_ids: Sequence[str] | None = None,
    calibrated: CalibratedOn | None = None,
    sweep: Sweep | None = None,
) -> Manifest:
    """Return the manifest of a run on the images of a split.

    `sample_ids` are the images asked for, None for all; `--limit` and `--shard` apply to both.
    """
    prompts, config = question.prompts, question.config
    weights, learns_from = question.weights, question.learns_from
    strategy = question.decider.identity
    identity = Identity(
        version=ids.IDENTITY_VERSION,
        dataset=DataIdentity(
            name=question.dataset.name,
            version=split.version,
            split=split.split,
            fingerprint=split.fingerprint,
            **without_none(decoding=split.decoding),
        ),
        # The fingerprint of the data covers the texts of items.
        prompts=ids.digest({"texts": "of each item"})
        if split.items
        else ids.prompts_digest(prompts.pairs),
        backbone=_backbone_identity(question),
        scoring=question.kind.scoring(question),
        strategy=strategy,
        seed=config.seed,
        **identity_settings(config, "run"),
        **without_none(
            hierarchy=None if prompts.parents is None else ids.digest({"tree": prompts.parents}),
            learned_from=None
            if learns_from is None
            else LearnedFrom(
                split=learns_from.split,
                fingerprint=learns_from.fingerprint,
                images=len(learns_from.sample_ids),
            ),
            candidates=question.shortlist and question.shortlist.source,
            calibrated=calibrated,
        ),
    )
    samples, part = _samples(config, split, sample_ids)
    plugins = load_plugins()
    return Manifest(
        format=MANIFEST_FORMAT,
        run_id=ids.run_id(split.name, question.backbone_name, strategy.name, identity),
        identity=identity,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=StoredConfig(**question.recorded_settings()),
        dataset=Data(
            name=split.name, version=split.version, split=split.split, n_total=len(split.sample_ids)
        ),
        backbone=BackboneInfo(
            name=question.backbone_name,
            version=question.backbone.version,
            weights=weights.location if weights else None,
            revision=weights.revision if weights else None,
            dtype=question.precision.dtype,
            trained_on=question.trained_on,
            **without_none(
                in_memory=dict(weights.description) if isinstance(weights, InMemory) else None,
                loras={lora.name: lora.scale for lora in weights.loras} or None
                if weights
                else None,
            ),
        ),
        strategy=strategy,
        classes=list(split.classes),
        prompts=[] if split.items else prompts.pairs,
        environment=environment(plugins.versions(), source_hashes(plugins, owners_of(question))),
        samples=samples,
        **without_none(
            parents=None if prompts.parents is None else list(prompts.parents),
            part=part,
            groups=split.groups,
            sweep=sweep,
            pairs_averaged=identity.scoring.antithetic or None,
            linearisation_cost=linearisation_cost(question)
            if question.strategy.linearises
            else None,
            evaluation_flop=evaluation_flops(question),
            items=describe_items(question, split.items, prompts) if split.items else None,
        ),
    )


def _backbone_identity(question: RunQuestion) -> BackboneIdentity:
    spec, weights, config = question.backbone, question.weights, question.config
    in_half = question.precision.dtype != "float32"
    half: tuple[IdentityRole, ...] = ("half",) if in_half else ()
    kept = in_half and weights is not None and fact(spec, Backbone.keeps_float32, weights)
    return BackboneIdentity(
        name=spec.name,
        version=spec.version,
        weights=weights.fingerprint if weights else None,
        parameters=recorded_parameters(spec, weights, question.backbone_parameters),
        **question.precision.identity(),
        **without_none(float32_parts=kept or None),
        **identity_settings(config, *half),
    )


def other_precision_note(question: RunQuestion, manifest: Manifest) -> str | None:
    """Return that a run is not stored, but the same one in another precision is; None if not so."""
    results, config = Path(question.config.results), question.config
    if config.fresh or is_begun(results / manifest.run_id):
        return None
    names = manifest.dataset.name, question.backbone_name, manifest.strategy.name
    for precision in all_precisions():
        variant = replace(question, precision=precision)
        identity = manifest.identity.model_copy(update={"backbone": _backbone_identity(variant)})
        run_id = ids.run_id(*names, identity)
        if is_begun(results / run_id):
            return (
                f"{run_id} is this run in another precision: {precision.options()} continues it."
                f" Without that, it starts anew in {question.precision}."
            )
    return None


def evaluation_flops(question: RunQuestion) -> float | None:
    """Return the floating-point operations per evaluation, declared or counted; None if unknown."""
    spec, config = question.backbone, question.config
    if question.source.weights is None and config.resolution is None and spec.flops:
        return spec.flops
    if question.weights is None:
        return None
    if has_own(spec, Likelihood.cell_flops):
        sizes = [] if question.split is None else question.split.some_sizes()
        texts, parameters = question.prompts.texts, question.backbone_parameters
        return fact(spec, Likelihood.cell_flops, question.weights, texts, sizes, **parameters)
    return fact(spec, Backbone.evaluation_flops, question.weights, config.resolution)


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


def owners_of(resolved: Resolved) -> list[str | None]:
    """Return the distribution behind each part of a run, or None for an unregistered part."""
    plugins = load_plugins()
    return [
        plugins.datasets.owner(resolved.dataset.name),
        plugins.backbones.owner(resolved.backbone.name),
        plugins.strategies.owner(resolved.decider.spec.name),
        *([plugins.views.owner(resolved.views.spec.name)] if resolved.views else []),
    ]


def describe_items(resolved: Resolved, items: ItemTable, pool: Prompts) -> Items:
    """Return the manifest's entry of the items."""
    chance = items.chance
    both = {"image_chance": chance.image, "group_chance": chance.group}
    return Items(
        images=items.shapes[0][0],
        texts=max(texts for _, texts in items.shapes),
        pool=len(pool.texts),
        chance=chance.answer,
        images_compared=resolved.strategy.same_draws,
        **(both if chance.image is not None else {}),
    )
