"""The manifest: what a run is, its identity, its samples, and where it was made."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.discovery.backbones import recorded_parameters
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.draws import read_noise
from bench.inputs.estimand import Weighting
from bench.inputs.fitting import FitSplit
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.inputs.subsets import limited, parse_shard
from bench.inputs.weights import Weights
from bench.machine.environment import environment
from bench.running.checks import linearisation_cost
from bench.running.items import describe_items
from bench.running.likelihoods import likelihood_reduction
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig
from bench.running.views import ResolvedViews
from bench.store import identity as ids
from bench.store.documents import Backbone, Data, Manifest, Part, Settings
from bench.store.fields import said
from bench.store.identity import (
    BackboneIdentity,
    CalibratedOn,
    Candidates,
    DataIdentity,
    Identity,
    LearnedFrom,
    Scoring,
    Strategy,
)
from bench.store.migrations import FORMAT


def make_manifest(
    resolved: Resolved,
    split: Split,
    prompts: Prompts,
    weights: Weights | None,
    weighting: Weighting,
    learns_from: FitSplit | None = None,
    candidates: Candidates | None = None,
    calibrated: CalibratedOn | None = None,
) -> Manifest:
    """Return what the run is: identity, settings, samples, and where it was made."""
    config = resolved.config
    scoring = Scoring()
    if resolved.backbone.scorer == "denoiser":
        scoring = Scoring(
            loss=config.loss,
            space=config.space,
            draw_plan=str(resolved.plan),
            noise=_noise(resolved),
            **_differing(config, "guidance", "latent", "fit", "subtract_null"),
            **said(weighting=weighting_identity(weighting), views=views_identity(resolved.views)),
        )
    elif resolved.backbone.scorer == "likelihood":
        scoring = Scoring(
            noise=f"seed {config.seed}",
            reduction=likelihood_reduction(resolved),
            **said(views=views_identity(resolved.views)),
        )
    strategy = Strategy(
        name=resolved.strategy_spec.name,
        version=resolved.strategy_spec.version,
        params=dict(resolved.strategy_parameters),
    )
    identity = Identity(
        version=ids.IDENTITY_VERSION,
        dataset=DataIdentity(
            name=resolved.dataset.name,
            version=split.version,
            split=split.split,
            fingerprint=split.fingerprint,
            **said(decoding=split.decoding),
        ),
        # The texts of items are part of the data, whose fingerprint has them.
        prompts=ids.digest({"texts": "of each item"})
        if split.items
        else ids.prompts_digest(prompts.pairs),
        backbone=BackboneIdentity(
            name=resolved.backbone.name,
            version=resolved.backbone.version,
            weights=weights.fingerprint if weights else None,
            dtype=config.dtype,
            parameters=recorded_parameters(
                resolved.backbone, weights, resolved.backbone_parameters
            ),
            **_rounding(config),
        ),
        scoring=scoring,
        strategy=strategy,
        seed=config.seed,
        **_differing(config, "template_rule", "control"),
        **said(
            learned_from=None if learns_from is None else _learned_from(learns_from),
            candidates=candidates,
            calibrated=calibrated,
        ),
    )
    samples, part = _samples(config, split)
    return Manifest(
        format=FORMAT,
        run_id=ids.run_id(
            split.name, resolved.backbone_name, resolved.strategy_spec.name, identity
        ),
        identity=identity,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=Settings(**config.model_dump()),
        dataset=Data(
            name=split.name,
            version=split.version,
            split=split.split,
            n_total=len(split.sample_ids),
        ),
        backbone=Backbone(
            name=resolved.backbone_name,
            version=resolved.backbone.version,
            weights=weights.location if weights else None,
            revision=weights.revision if weights else None,
            dtype=config.dtype,
            trained_on=resolved.trained_on,
        ),
        strategy=strategy,
        classes=list(split.classes),
        prompts=[] if split.items else prompts.pairs,
        environment=environment(load_plugins().versions()),
        samples=samples,
        **said(
            part=part,
            linearisation_cost=_price(resolved, weights),
            items=describe_items(resolved, split.items, prompts) if split.items else None,
        ),
    )


def _samples(config: RunConfig, split: Split) -> tuple[list[str], Part | None]:
    """Return the samples asked for, and of a shard which part of the run it is.

    Raises:
        UserError: there are more shards than samples.
    """
    if config.shard is None:
        return limited(split.sample_ids, split.labels, config.limit), None
    shard = parse_shard(config.shard)
    samples = limited(split.sample_ids, split.labels, config.limit, shard)
    asked = min(config.limit or len(split.sample_ids), len(split.sample_ids))
    if not samples:
        raise UserError(f"--shard {shard}: there are only {asked} images, one for each shard.")
    mine = set(samples)
    places = [place for place, name in enumerate(split.sample_ids) if name in mine]
    return samples, Part(index=shard.index, count=shard.count, asked=asked, places=places)


def _learned_from(fit: FitSplit) -> LearnedFrom:
    """Return what a backbone that learns was fitted on."""
    split = fit.split
    return LearnedFrom(
        split=split.split, fingerprint=split.fingerprint, images=len(split.sample_ids)
    )


def _price(resolved: Resolved, weights: Weights | None) -> float | None:
    """Return what a linearised draw counts as; None: the strategy asks for none."""
    return linearisation_cost(resolved, weights) if resolved.strategy.linearises else None


def _rounding(config: RunConfig) -> dict[str, Any]:
    """Return the switches that enter the identity.

    In float32 the layout, the kernel and compilation move the last digits, as the batch size does,
    and no decision; in half precision they round at other places and enter it. Only what differs
    from the default is there, so that a new switch leaves the runs made before it as they are.
    """
    switches = ["tf32"] if config.dtype == "float32" else ["tf32", "compile", "layout", "attention"]
    return _differing(config, *switches)


def _differing(config: RunConfig, *names: str) -> dict[str, Any]:
    """Return the settings that are not at their default, which an identity leaves out."""
    fields = RunConfig.model_fields
    return {
        name: value for name in names if (value := getattr(config, name)) != fields[name].default
    }


def _noise(resolved: Resolved) -> str:
    config = resolved.config
    if config.noise is None:
        return f"seed {config.seed}" + (" per image" if config.noise_per == "image" else "")
    bank = read_noise(Path(config.noise), resolved.strategy_parameters["draws"])
    return f"sha256 {hashlib.sha256(bank.tobytes()).hexdigest()}"


def views_identity(views: ResolvedViews | None) -> str | None:
    """Return the views as the identity has them; None: the image itself."""
    if views is None:
        return None
    name = ":".join([views.spec.name, *map(str, views.parameters.values())])
    version = views.spec.version
    return name if version == 1 else f"{name} (version {version})"


def weighting_identity(weighting: Weighting) -> str | None:
    """Return a formula as it is said, listed weights by their content; None: all are the same."""
    if weighting.name == "uniform":
        return None
    if weighting.weights is None:
        return str(weighting)
    return f"sha256 {ids.digest({'weights': sorted(weighting.weights.items())})}"
