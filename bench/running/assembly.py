"""A run's parts from its settings: prompts, weights, backbone, engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.decision import Engine
from bench.contracts.strategy import Problem
from bench.errors import UserError
from bench.inputs.draws import parse_plan, read_noise
from bench.inputs.prompts import Prompts, from_file, from_template
from bench.inputs.weights import Weights
from bench.inputs.weights import resolve as resolve_weights
from bench.machine.environment import pick_device
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig


def make_prompts(resolved: Resolved, classes: tuple[str, ...]) -> Prompts:
    """Return the run's prompts, from the file, the template or the dataset's template."""
    config, spec = resolved.config, resolved.dataset
    if config.prompts:
        return from_file(Path(config.prompts), classes)
    return from_template(config.template or spec.template, classes, spec.phrases)


def find_weights(resolved: Resolved) -> Weights | None:
    """Return the backbone's weights, located but not read; None where it needs none."""
    weights = resolved.config.weights or resolved.backbone.weights
    if weights is None:
        return None
    return resolve_weights(weights, resolved.config.revision or resolved.backbone.revision)


def check_token_lengths(resolved: Resolved, weights: Weights | None, prompts: Prompts) -> None:
    """Refuse prompts that the tokenizer would cut, where the backbone can count tokens."""
    count = getattr(resolved.backbone.load(), "token_counts", None)
    if count is None:
        return
    counts, most = count(weights, prompts.texts)
    for source, text, n in zip(prompts.sources, prompts.texts, counts, strict=True):
        if n > most:
            raise UserError(
                f"{source}: the prompt has {n} tokens and would be cut at {most}: {text!r}."
            )


def check_linearisable(resolved: Resolved) -> None:
    """Refuse a strategy that linearises with a backbone that cannot."""
    if linearises(resolved) and not can_linearise(resolved):
        name = resolved.strategy_spec.name
        raise UserError(
            f"Strategy {name!r} needs gradients to the text conditioning, and backbone"
            f" {resolved.backbone_name!r} does not offer them. `race` decides without."
        )


def linearises(resolved: Resolved) -> bool:
    """Return whether the strategy asks for first-order errors."""
    return bool(getattr(resolved.strategy, "linearises", False))


def can_linearise(resolved: Resolved) -> bool:
    """Return whether the backbone offers gradients to its conditioning."""
    return bool(getattr(resolved.backbone.load(), "can_linearise", False))


def make_engine(
    resolved: Resolved, prompts: Prompts, weights: Weights | None, backbone: Any = None
) -> Engine:
    """Make the engine that fits the backbone, which is loaded where none is given."""
    config, spec = resolved.config, resolved.backbone
    backbone = backbone or make_backbone(resolved, weights)
    class_of_prompt = np.array(prompts.class_of_prompt)
    if spec.scorer == "classifier":
        from bench.engine.classifying import ClassifyingEngine

        one_draw = Problem(class_of_prompt, np.zeros(1, np.int64), np.ones(1), config.seed)
        return ClassifyingEngine(backbone, prompts.texts, one_draw, _chosen(config) or 16)

    from bench.engine.acceleration import compile_network
    from bench.engine.batching import settle_batch_size
    from bench.engine.denoising import DenoisingEngine
    from bench.engine.embeddings import embed_prompts
    from bench.engine.scoring import coefficients

    n_draws = resolved.strategy_parameters["draws"]
    plan = parse_plan(resolved.draw_plan)
    timesteps = plan.timesteps(n_draws, len(backbone.alphas_cumprod))
    shape = tuple(backbone.latent_shape)
    noise = (
        read_noise(Path(config.noise), n_draws, shape)
        if config.noise
        else plan.noise(config.seed, n_draws, shape)
    )
    conditioning = embed_prompts(backbone, _backbone_key(resolved, weights), prompts.texts)
    engine = DenoisingEngine(
        backbone,
        conditioning,
        Problem(class_of_prompt, timesteps, np.ones(n_draws), config.seed, can_linearise(resolved)),
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
    )
    if config.batch_size == "auto":
        key = speed_key(resolved, weights)
        settle_batch_size(engine, key)
        if linearises(resolved):
            settle_batch_size(engine.linear, f"{key} linearised")
    if config.compile:
        compile_network(backbone)
        engine.one_shape = True
    return engine


def make_backbone(resolved: Resolved, weights: Weights | None) -> Any:
    """Load the backbone and have its network run as the settings say."""
    config, spec = resolved.config, resolved.backbone
    device = pick_device(config.device)
    backbone = spec.load()(
        weights, device=device, dtype=config.dtype, **resolved.backbone_parameters
    )
    if spec.scorer == "denoiser":
        from bench.engine.acceleration import accelerate, set_precision

        set_precision(backbone.device, config.tf32)
        accelerate(backbone, config.layout, config.attention, config.compile)
    return backbone


def _backbone_key(resolved: Resolved, weights: Weights | None) -> str:
    spec, fingerprint = resolved.backbone, weights.fingerprint if weights else ""
    rounding = " tf32" if resolved.config.tf32 else ""
    return f"{spec.name} {spec.version} {fingerprint} {resolved.config.dtype}{rounding}"


def speed_key(resolved: Resolved, weights: Weights | None) -> str:
    """Return all that decides a speed but the device, to remember the best batch size under."""
    config, resolution = resolved.config, resolved.backbone_parameters.get("resolution")
    return f"{_backbone_key(resolved, weights)} {resolution} {config.layout} {config.attention}"


def _chosen(config: RunConfig) -> int | None:
    return None if config.batch_size == "auto" else config.batch_size


def default_batch_size(device: str, latent_shape: tuple[int, ...]) -> int:
    """Return the cells of a batch: enough to fill the device, and little to throw away at the end.

    64 for small latents; for 64×64 ones (512 pixels) 4 on a CPU, where more is no faster, and 32
    on an accelerator, the reference implementation's.
    """
    most = 16_384 if device == "cpu" else 131_072  # latent pixels a batch
    return max(1, min(64, most // (latent_shape[-2] * latent_shape[-1])))
