"""The draws and encoded prompts of a run: values, cache keys and entries of the identity."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contracts.levels import Column, Levels
from bench.contracts.strategy import Ints
from bench.discovery import backbones
from bench.discovery.backbones import encoder_key
from bench.inputs.draws import read_noise
from bench.inputs.estimand import Weighting, draw_weights
from bench.running.parts.measure import ResolvedViews
from bench.running.question import RunQuestion
from bench.running.settings import RunConfig, about, loading_settings
from bench.store.identity import digest

if TYPE_CHECKING:
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.scoring import Noise
    from bench.engine.trees import Tree


def draw_rows(prepared: RunQuestion, levels: Levels) -> Ints:
    """Return int64 [N], the row of each draw in the level table."""
    return prepared.plan.assign_levels(prepared.n_draws, len(levels))


def weights_of_draws(prepared: RunQuestion, levels: Levels) -> Column:
    """Return float64 [N], the weight of each draw; raises UserError for levels out of range."""
    rows, space = draw_rows(prepared, levels), prepared.config.space
    return draw_weights(prepared.weighting, levels.rows(rows), space, rows, len(levels))


def level_table(prepared: RunQuestion) -> Levels | None:
    """Return the backbone's noise levels; None if only the model itself knows them."""
    return backbones.level_table(
        prepared.backbone, prepared.weights, **prepared.backbone_parameters
    )


def run_noise(prepared: RunQuestion, backbone: CheckedDenoiser) -> Noise:
    """Return the noise of the draws, from the seed or a file, shared by images or one per image."""
    from bench.engine.scoring import OwnNoise, SharedNoise

    config, plan, shape = prepared.config, prepared.plan, backbone.latent_shape
    n_draws = prepared.n_draws
    if config.noise_per == "image":
        return OwnNoise(plan, config.seed, shape, backbone.device)
    if config.noise:
        bank = read_noise(Path(config.noise), n_draws, shape)
    else:
        bank = plan.make_noise(config.seed, n_draws, shape)
    return SharedNoise(bank, backbone.device)


def encode_texts(prepared: RunQuestion, backbone: CheckedDenoiser) -> Tree:
    """Return the run's encoded prompts, cached on disk, and last the null if it is needed."""
    from bench.engine.embeddings import embed_prompts

    prepared.check_key(backbone)
    texts, with_null = prepared.prompts.texts, needs_null(prepared.config)
    return embed_prompts(backbone, conditioning_key(prepared), texts, with_null)


def needs_null(config: RunConfig) -> bool:
    """Return whether the null conditioning is used."""
    return config.subtract_null or config.guidance is not None


def speed_key(prepared: RunQuestion) -> str:
    """Return the cache key of the best batch size: all that affects speed except the device."""
    spec, weights = prepared.backbone, prepared.weights
    resolution = prepared.backbone_parameters.get("resolution")
    fingerprint, loading = weights.fingerprint if weights else "", loading_settings(prepared.config)
    of_network = [value for name, value in loading if name != "device"]
    return f"{spec.name} {spec.version} {fingerprint} {prepared.dtype} {resolution} {of_network}"


def conditioning_key(prepared: RunQuestion) -> str:
    """Return the cache key of encoded prompts: all that affects them except their texts."""
    own = encoder_key(prepared.backbone, prepared.weights, prepared.backbone_parameters)
    loading = [pair for pair in loading_settings(prepared.config) if pair[0] in about("prompts")]
    return f"{own} {prepared.dtype} {loading}"


def noise_identity(config: RunConfig, n_draws: int) -> str:
    """Return the entry of the identity for the noise: the seed, or the hash of the file."""
    if config.noise is None:
        return f"seed {config.seed}" + (" per image" if config.noise_per == "image" else "")
    bank = read_noise(Path(config.noise), n_draws)
    return f"sha256 {hashlib.sha256(bank.tobytes()).hexdigest()}"


def views_identity(views: ResolvedViews | None) -> str | None:
    """Return the entry of the identity for the views; None without views."""
    if views is None:
        return None
    name = ":".join([views.spec.name, *map(str, views.parameters.values())])
    version = views.spec.version
    return name if version == 1 else f"{name} (version {version})"


def weighting_identity(weighting: Weighting) -> str | None:
    """Return a formula as written, or the hash of listed weights; None for equal weights."""
    if weighting.name == "uniform":
        return None
    if weighting.weights is None:
        return str(weighting)
    return f"sha256 {digest({'weights': sorted(weighting.weights.items())})}"
