"""From what is prepared to the loaded backbone and the engine that fits it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.backbone import LINEARISATION_COST
from bench.contracts.decision import Engine
from bench.contracts.strategy import Problem
from bench.discovery.backbones import can_linearise
from bench.discovery.targets import make
from bench.inputs.draws import read_noise
from bench.machine.environment import pick_device
from bench.running.checks import linearisation_cost
from bench.running.settings import RunConfig

if TYPE_CHECKING:
    from bench.engine.classifying import CheckedClassifier
    from bench.engine.denoiser import CheckedDenoiser
    from bench.running.prepare import Prepared


def open_engine(
    prepared: Prepared, backbone: CheckedDenoiser | CheckedClassifier | None = None
) -> Engine:
    """Return the engine that fits the backbone, which is loaded where none is given."""
    config, resolved, prompts = prepared.config, prepared.resolved, prepared.prompts
    backbone = backbone or load_backbone(prepared)
    class_of_prompt = np.array(prompts.class_of_prompt)
    if resolved.backbone.scorer == "classifier":
        from bench.engine.classifying import CheckedClassifier, ClassifyingEngine

        assert isinstance(backbone, CheckedClassifier)
        one_draw = Problem(class_of_prompt, np.zeros(1, np.int64), np.ones(1), config.seed)
        return ClassifyingEngine(backbone, prompts.texts, one_draw, _chosen(config) or 16)

    from bench.engine.acceleration import compile_network
    from bench.engine.batching import settle_batch_size
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.denoising import DenoisingEngine
    from bench.engine.embeddings import embed_prompts
    from bench.engine.scoring import coefficients

    assert isinstance(backbone, CheckedDenoiser)
    n_draws = resolved.strategy_parameters["draws"]
    plan = resolved.plan
    timesteps = plan.levels(n_draws, len(backbone.alphas_cumprod))
    shape = backbone.latent_shape
    noise = (
        read_noise(Path(config.noise), n_draws, shape)
        if config.noise
        else plan.noise(config.seed, n_draws, shape)
    )
    gradients = can_linearise(resolved.backbone)
    conditioning = embed_prompts(backbone, _backbone_key(prepared), prompts.texts)
    engine = DenoisingEngine(
        backbone,
        conditioning,
        Problem(class_of_prompt, timesteps, np.ones(n_draws), config.seed, gradients),
        coefficients(
            backbone.alphas_cumprod,
            timesteps,
            backbone.prediction_type,
            config.space,
            backbone.device,
        ),
        noise,
        config.loss,
        _chosen(config) or default_batch_size(backbone.device.type, shape),
        linearisation_cost=(
            linearisation_cost(resolved, prepared.weights)
            if resolved.strategy.linearises
            else LINEARISATION_COST
        ),
    )
    if config.batch_size == "auto":
        key = speed_key(prepared)
        settle_batch_size(engine, key)
        if resolved.strategy.linearises:
            settle_batch_size(engine.linear, f"{key} linearised")
    if config.compile:
        compile_network(backbone)
        engine.one_shape = True
    return engine


def load_backbone(prepared: Prepared) -> CheckedDenoiser | CheckedClassifier:
    """Load the backbone, unless the caller has, and have its network run as the settings say."""
    config, spec, backbone = prepared.config, prepared.resolved.backbone, prepared.loaded
    if backbone is None:
        backbone = make(
            spec,
            prepared.weights,
            device=pick_device(config.device),
            dtype=config.dtype,
            **prepared.resolved.backbone_parameters,
        )
    if spec.scorer == "classifier":
        from bench.engine.classifying import CheckedClassifier

        return CheckedClassifier(backbone, spec.label)
    from bench.engine.acceleration import accelerate, set_precision
    from bench.engine.denoiser import CheckedDenoiser

    denoiser = CheckedDenoiser(backbone, spec.label)
    set_precision(denoiser.device, config.tf32)
    accelerate(denoiser, config.layout, config.attention, config.compile)
    return denoiser


def _backbone_key(prepared: Prepared) -> str:
    config, spec, weights = prepared.config, prepared.resolved.backbone, prepared.weights
    fingerprint, rounding = weights.fingerprint if weights else "", " tf32" if config.tf32 else ""
    return f"{spec.name} {spec.version} {fingerprint} {config.dtype}{rounding}"


def speed_key(prepared: Prepared) -> str:
    """Return all that decides a speed but the device, to remember the best batch size under."""
    config = prepared.config
    resolution = prepared.resolved.backbone_parameters.get("resolution")
    return f"{_backbone_key(prepared)} {resolution} {config.layout} {config.attention}"


def _chosen(config: RunConfig) -> int | None:
    return None if config.batch_size == "auto" else config.batch_size


def default_batch_size(device: str, latent_shape: tuple[int, ...]) -> int:
    """Return the cells of a batch: enough to fill the device, few wasted at the end.

    64 for small latents; for 64×64 ones (512 pixels) 4 on a CPU, where more is no faster, and 32
    on an accelerator, the reference implementation's.
    """
    most = 16_384 if device == "cpu" else 131_072  # latent pixels per batch
    return max(1, min(64, most // (latent_shape[-2] * latent_shape[-1])))
