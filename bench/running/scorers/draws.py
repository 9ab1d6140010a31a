"""The draws of a denoiser's run: their levels, weights and noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.contracts.levels import Column, Levels
from bench.contracts.strategy import Ints
from bench.discovery import backbones
from bench.inputs.draws import read_noise
from bench.inputs.estimand import draw_weights
from bench.running.prepared import Prepared
from bench.running.resolve import Resolved

if TYPE_CHECKING:
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.noising import Noise


def draw_rows(resolved: Resolved, levels: Levels) -> Ints:
    """Return int64 [N], the row of the level table of each draw."""
    return resolved.plan.levels(resolved.strategy_parameters["draws"], len(levels))


def weights_of_draws(prepared: Prepared, levels: Levels) -> Column:
    """Return float64 [N], the weight of each draw on a model's levels.

    Raises:
        UserError: the levels or weights asked for are not the model's.
    """
    rows, space = draw_rows(prepared.resolved, levels), prepared.config.space
    return draw_weights(prepared.weighting, levels.rows(rows), space, rows, len(levels))


def level_table(prepared: Prepared) -> Levels | None:
    """Return the noise levels that the backbone's class declares; None: only the model knows."""
    resolved = prepared.resolved
    return backbones.level_table(
        resolved.backbone, prepared.weights, **resolved.backbone_parameters
    )


def run_noise(prepared: Prepared, backbone: CheckedDenoiser, n_draws: int) -> Noise:
    """Return the noise of the run's draws, from the seed or the file, shared or per image."""
    from bench.engine.noising import OwnNoise, SharedNoise

    config, plan, shape = prepared.config, prepared.resolved.plan, backbone.latent_shape
    if config.noise_per == "image":
        return OwnNoise(plan, config.seed, shape, backbone.device)
    if config.noise:
        bank = read_noise(Path(config.noise), n_draws, shape)
    else:
        bank = plan.noise(config.seed, n_draws, shape)
    return SharedNoise(bank, backbone.device)
