"""Runs of denoisers: diffusion models, scored by the error of their predictions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contracts.backbone import LINEARISATION_COST, Denoiser
from bench.contracts.decision import Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Problem
from bench.discovery import backbones
from bench.discovery.targets import load_target, offers
from bench.errors import UserError
from bench.inputs.draws import read_noise
from bench.inputs.templates import Columns
from bench.running.parts.measure import view_of_each_draw
from bench.running.prepared import Prepared
from bench.running.resolve import Resolved
from bench.running.scorers.draws import (
    conditioning_key,
    draw_rows,
    encode_texts,
    level_table,
    needs_null,
    noise_identity,
    run_noise,
    speed_key,
    views_identity,
    weighting_identity,
    weights_of_draws,
)
from bench.running.scorers.kind import ScorerKind, chosen_batch_size
from bench.running.settings import identity_settings
from bench.store.fields import without_none
from bench.store.identity import ScoringIdentity

if TYPE_CHECKING:
    from bench.engine.denoiser import CheckedDenoiser
    from bench.running.scorers.kind import CheckedBackbone


class DenoiserKind(ScorerKind):
    """Runs of a denoiser, with noise levels, encoded prompts and latents of images."""

    batches_cells = True

    def problem(
        self, prepared: Prepared, columns: Columns, levels: Levels | None = None
    ) -> Problem:
        """Return the problem of an image, with the costs of cells and, with `levels`, the draws."""
        problem = replace(
            super().problem(prepared, columns),
            can_linearise=prepared.strategy.linearises,
            null_cost=int(needs_null(prepared.config)),
            linearisation_cost=linearisation_cost(prepared),
            antithetic=prepared.plan.name == "antithetic",
        )
        if levels is None:
            return problem
        return replace(
            problem,
            timesteps=draw_rows(prepared, levels),
            weights=weights_of_draws(prepared, levels),
            can_linearise=backbones.can_linearise(prepared.backbone),
        )

    def check(self, prepared: Prepared, scores_texts: bool = False) -> None:
        """Raise UserError if the backbone lacks a null, a posterior or levels that are needed."""
        super().check(prepared)
        if prepared.config.subtract_null:
            _check_null_subtracted(prepared)
        config = prepared.config
        target, name = load_target(prepared.backbone), prepared.backbone_name
        if config.guidance is not None and not offers(target, Denoiser.encode_null):
            raise UserError(
                f"--guidance needs a null conditioning, but backbone {name!r} has no `encode_null`."
            )
        of_latents = prepared.views is not None and prepared.views.views.of_latents
        if of_latents and config.latent == "sample":
            raise UserError(
                f"--views {config.views} are samples of the latent; leave --latent out."
            )
        if (of_latents or config.latent == "sample") and not offers(target, Denoiser.posterior):
            option = f"--views {config.views}" if of_latents else "--latent sample"
            raise UserError(
                f"{option} needs the distribution of the latent, but backbone {name!r} has no"
                " `posterior`."
            )
        if (levels := level_table(prepared)) is not None:
            weights_of_draws(prepared, levels)

    def check_draws(self, prepared: Prepared) -> None:
        """Raise UserError if levels, weights or noise of the user do not fit the model.

        The model is made on the CPU if its class declares no levels or `--noise` is set.
        """
        from bench.engine.denoiser import CheckedDenoiser

        config = prepared.config
        weighted = prepared.weighting.name != "uniform"
        if not (config.noise or config.levels or config.plan or weighted):
            return
        levels = level_table(prepared)
        if levels is None or config.noise:
            on_cpu = prepared.config.model_copy(update={"device": "cpu"})
            backbone = self.make(replace(prepared, config=on_cpu))
            assert isinstance(backbone, CheckedDenoiser)
            levels = backbone.levels
            if config.noise:
                read_noise(Path(config.noise), self.draws(prepared), backbone.latent_shape)
        weights_of_draws(prepared, levels)

    def scoring(self, prepared: Prepared) -> ScoringIdentity:
        """Return the identity of the error and the draws, without settings at their default."""
        config = prepared.config
        return ScoringIdentity(
            loss=config.loss,
            space=config.space,
            draw_plan=str(prepared.plan),
            noise=noise_identity(config, self.draws(prepared)),
            **identity_settings(config, "scoring"),
            **without_none(
                weighting=weighting_identity(prepared.weighting),
                views=views_identity(prepared.views),
                guidance_null=None if config.guidance is None else "draw",
            ),
        )

    def checked(self, resolved: Resolved, backbone: Any) -> CheckedDenoiser:
        """Return a plugin's denoiser with checks of every output; sets the precision of float32."""
        from bench.engine.acceleration import set_precision
        from bench.engine.denoiser import CheckedDenoiser

        denoiser = CheckedDenoiser(backbone, resolved.backbone.label)
        set_precision(denoiser.device, resolved.config.tf32)
        return denoiser

    def load(self, prepared: Prepared, encoded_first: Iterable[Prepared] = ()) -> CheckedDenoiser:
        """Return the denoiser; the runs' prompts are encoded before its network is loaded."""
        from bench.engine.denoiser import CheckedDenoiser

        backbone = self.make(prepared)
        assert isinstance(backbone, CheckedDenoiser)
        for run in encoded_first:
            with suppress(UserError):  # that run raises it again when it starts
                encode_texts(run, backbone)
        _set_up(prepared, backbone)
        return backbone

    def text_files(self, prepared: Prepared) -> list[Path]:
        """Return the file of the run's encoded prompts."""
        from bench.engine.embeddings import conditioning_file

        texts, with_null = prepared.prompts.texts, needs_null(prepared.config)
        return [conditioning_file(conditioning_key(prepared), texts, with_null)]

    def open_engine(self, prepared: Prepared, backbone: CheckedBackbone | None = None) -> Engine:
        """Return the engine; prompts are encoded before the network is loaded."""
        from bench.engine.acceleration import compile_network
        from bench.engine.batching import settle_batch_size
        from bench.engine.denoiser import CheckedDenoiser
        from bench.engine.denoising import DenoisingEngine
        from bench.engine.latents import Latents
        from bench.engine.scoring import Scoring, coefficients

        config = prepared.config
        denoiser = self.backbone_of(prepared, backbone)
        assert isinstance(denoiser, CheckedDenoiser)
        columns = self.columns(prepared, np.array(prepared.prompts.class_of_prompt))
        problem = self.problem(prepared, columns, denoiser.levels)
        noise = run_noise(prepared, denoiser, self.draws(prepared))
        conditioning = encode_texts(prepared, denoiser)
        if backbone is None:
            _set_up(prepared, denoiser)
        views = prepared.views
        engine = DenoisingEngine(
            denoiser,
            conditioning,
            problem,
            columns,
            Scoring(
                coefficients(denoiser.levels, problem.timesteps, config.space, denoiser.device),
                noise,
                config.loss,
                config.guidance,
            ),
            chosen_batch_size(prepared)
            or default_batch_size(denoiser.device.type, denoiser.latent_shape),
            latents=Latents(
                denoiser,
                config.seed,
                sample=config.latent == "sample",
                squashed=config.fit == "squash",
                views=None if views is None else views.views,
            ),
            view_of_draw=view_of_each_draw(views, self.draws(prepared), prepared.plan),
            subtracts_null=config.subtract_null,
        )
        if config.batch_size == "auto":
            key = speed_key(prepared)
            settle_batch_size(engine, key)
            if prepared.strategy.linearises:
                settle_batch_size(engine.linear, f"{key} linearised")
        if config.compile:
            compile_network(denoiser)
            engine.one_shape = True
        return engine


def linearisation_cost(prepared: Prepared) -> float:
    """Return the cost of a linearised draw in evaluations, which the backbone may declare."""
    if not prepared.strategy.linearises:
        return LINEARISATION_COST
    resolution = prepared.backbone_parameters.get("resolution")
    cost = backbones.linearisation_cost(prepared.backbone, prepared.weights, resolution)
    null = prepared.config.guidance is not None
    return (LINEARISATION_COST if cost is None else cost) + null


def default_batch_size(device: str, latent_shape: tuple[int, ...]) -> int:
    """Return the default number of cells per batch: enough to fill the device, and no more.

    64 for small latents; for 64×64 ones (512 pixels) 4 on a CPU, where more is no faster, and 32
    on an accelerator, as in the reference implementation.
    """
    pixels = 16_384 if device == "cpu" else 131_072  # of latents per batch
    return max(1, min(64, pixels // (latent_shape[-2] * latent_shape[-1])))


def _set_up(prepared: Prepared, backbone: CheckedDenoiser) -> None:
    """Load the network and apply the settings of how it runs."""
    from bench.engine.acceleration import accelerate

    config = prepared.config
    if prepared.backbone.objects:  # the caller's object is left unchanged
        return
    accelerate(backbone, config.layout, config.attention, config.compile)


def _check_null_subtracted(prepared: Prepared) -> None:
    """Raise UserError if `--subtract-null` has no effect, or the backbone has no null."""
    split = prepared.split
    images = 1 if split is None or split.items is None else split.items.shapes[0][0]
    if images == 1:
        raise UserError(
            "--subtract-null needs items with several images: it changes no decision among the"
            " texts of one image."
        )
    if not offers(load_target(prepared.backbone), Denoiser.encode_null):
        raise UserError(
            f"--subtract-null needs a null conditioning, but backbone {prepared.backbone_name!r}"
            " has no `encode_null`."
        )
