"""From what is prepared to the loaded backbone and the engine that fits it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bench.contracts.backbone import LINEARISATION_COST
from bench.contracts.decision import Engine
from bench.contracts.strategy import Ints, Problem
from bench.discovery.backbones import can_linearise
from bench.discovery.targets import make
from bench.engine.viewing import view_of_draw
from bench.inputs.controls import TEXT_ONLY
from bench.inputs.draws import read_noise
from bench.inputs.templates import make_columns
from bench.machine.environment import pick_device
from bench.running.checks import linearisation_cost, weights_of_draws
from bench.running.fitting import find_fit_split
from bench.running.resolve import Resolved
from bench.running.settings import RunConfig

if TYPE_CHECKING:
    from bench.engine.classifying import CheckedClassifier
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.likelihoods import CheckedLikelihood
    from bench.engine.noising import Noise
    from bench.engine.trees import Tree
    from bench.running.prepared import Prepared

    CheckedBackbone = CheckedDenoiser | CheckedClassifier | CheckedLikelihood


def open_engine(prepared: Prepared, backbone: CheckedBackbone | None = None) -> Engine:
    """Return the engine that fits the backbone, which is loaded where none is given."""
    config, resolved, prompts = prepared.config, prepared.resolved, prepared.prompts
    given, backbone = backbone, backbone or make_backbone(prepared)
    classes, rule = np.array(prompts.class_of_prompt), config.template_rule
    if resolved.backbone.scorer == "classifier":
        from bench.engine.classifying import CheckedClassifier, CheckedEnsemble, ClassifyingEngine

        assert isinstance(backbone, CheckedClassifier)
        columns = make_columns(classes, rule, 1)
        if columns.each > 1 and backbone.makes_ensembles:
            backbone = CheckedEnsemble(backbone, prompts.texts, columns)
        one_draw = Problem(
            columns.class_of_column,
            np.zeros(1, np.int64),
            np.ones(1),
            config.seed,
            cell_cost=columns.each,
        )
        fit = prepared.learns_from or find_fit_split(resolved, prepared.split)
        fitted = backbone.fit(fit.images(), fit.texts(prompts.texts)) if fit else None
        size = _chosen(config) or 16
        return ClassifyingEngine(backbone, prompts.texts, one_draw, columns, size, fitted)

    if resolved.backbone.scorer == "likelihood":
        return _likelihood_engine(prepared, backbone)

    from bench.engine.acceleration import compile_network
    from bench.engine.batching import settle_batch_size
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.denoising import DenoisingEngine
    from bench.engine.evaluating import Scoring
    from bench.engine.latents import Latents
    from bench.engine.scoring import coefficients

    assert isinstance(backbone, CheckedDenoiser)
    n_draws, plan = resolved.strategy_parameters["draws"], resolved.plan
    rows = plan.levels(n_draws, len(backbone.levels))
    weights = weights_of_draws(prepared, backbone.levels)
    noise = make_noise(prepared, backbone)
    columns = make_columns(classes, rule, n_draws, per_level=1 if plan.name == "grid" else 2)
    conditioning, null = encode_texts(prepared, backbone)
    if given is None:
        set_up(prepared, backbone)
    passes = 2 if null is not None else 1
    price = LINEARISATION_COST
    if resolved.strategy.linearises:
        price = linearisation_cost(resolved, prepared.weights)
    engine = DenoisingEngine(
        backbone,
        conditioning,
        Problem(
            columns.class_of_column,
            rows,
            weights,
            config.seed,
            can_linearise(resolved.backbone),
            cell_cost=columns.each * passes,
            null_cost=passes if config.subtract_null else 0,
            linearisation_cost=price,
        ),
        columns,
        Scoring(
            coefficients(backbone.levels, rows, config.space, backbone.device),
            noise,
            config.loss,
            config.guidance,
            null,
        ),
        _chosen(config) or default_batch_size(backbone.device.type, backbone.latent_shape),
        latents=Latents(
            backbone,
            config.seed,
            sample=config.latent == "sample",
            squashed=config.fit == "squash",
            views=None if resolved.views is None else resolved.views.views,
        ),
        view_of_draw=_view_of_draw(resolved),
        subtracts_null=config.subtract_null,
        linearisation_cost=price,
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


def _likelihood_engine(prepared: Prepared, backbone: Any) -> Engine:
    """Return the engine of a likelihood, whose draws are counted and have no noise level."""
    from bench.engine.likelihoods import CheckedLikelihood, LikelihoodEngine

    assert isinstance(backbone, CheckedLikelihood)
    config, resolved, prompts = prepared.config, prepared.resolved, prepared.prompts
    backbone.blind = config.control == TEXT_ONLY
    n_draws = resolved.strategy_parameters["draws"]
    columns = make_columns(np.array(prompts.class_of_prompt), config.template_rule, n_draws)
    problem = Problem(
        columns.class_of_column,
        np.arange(n_draws),
        np.ones(n_draws),
        config.seed,
        reduction=backbone.reduction,
        cell_cost=columns.each,
    )
    return LikelihoodEngine(
        backbone,
        prompts.texts,
        problem,
        columns,
        _chosen(config) or 64,
        None if resolved.views is None else resolved.views.views,
        _view_of_draw(resolved),
    )


def _view_of_draw(resolved: Resolved) -> Ints | None:
    """Return int64 [N], the view that each draw sees; draws of one level see the same one."""
    if resolved.views is None:
        return None
    per_level = 1 if resolved.plan.name == "grid" else 2
    n_draws = resolved.strategy_parameters["draws"]
    return view_of_draw(n_draws, resolved.views.views.count, per_level)


def encode_texts(prepared: Prepared, backbone: CheckedDenoiser) -> tuple[Tree, Tree | None]:
    """Return the conditioning of a run's prompts, and of the null where it guides."""
    from bench.engine.embeddings import embed_null, embed_prompts

    config, key = prepared.config, _conditioning_key(prepared)
    conditioning = embed_prompts(backbone, key, prepared.prompts.texts, config.subtract_null)
    return conditioning, embed_null(backbone, key) if config.guidance is not None else None


def text_files(prepared: Prepared) -> list[Path]:
    """Return the files that keep the run's encoded prompts; those of a classifier are its own."""
    if prepared.resolved.backbone.scorer != "denoiser":
        return []
    from bench.engine.embeddings import null_file, prompts_file

    config, key = prepared.config, _conditioning_key(prepared)
    files = [prompts_file(key, prepared.prompts.texts, config.subtract_null)]
    return [*files, null_file(key)] if config.guidance is not None else files


def make_noise(prepared: Prepared, backbone: CheckedDenoiser) -> Noise:
    """Return the noise of the run's draws, from the seed or the file, shared or per image."""
    from bench.engine.noising import OwnNoise, SharedNoise

    config, plan, shape = prepared.config, prepared.resolved.plan, backbone.latent_shape
    n_draws = prepared.resolved.strategy_parameters["draws"]
    if config.noise_per == "image":
        return OwnNoise(plan, config.seed, shape, backbone.device)
    if config.noise:
        bank = read_noise(Path(config.noise), n_draws, shape)
    else:
        bank = plan.noise(config.seed, n_draws, shape)
    return SharedNoise(bank, backbone.device)


def load_backbone(prepared: Prepared) -> CheckedBackbone:
    """Load the backbone, unless the caller has, and have its network run as the settings say."""
    backbone = make_backbone(prepared)
    if prepared.resolved.backbone.scorer == "denoiser":
        set_up(prepared, cast("CheckedDenoiser", backbone))
    return backbone


def set_up(prepared: Prepared, backbone: CheckedDenoiser) -> None:
    """Have the network run as the settings say, which loads it where it is not loaded yet.

    Prompts are encoded before: text encoders are freed then, and never in memory beside it.
    """
    from bench.engine.acceleration import accelerate

    config = prepared.config
    accelerate(backbone, config.layout, config.attention, config.compile)


def make_backbone(prepared: Prepared) -> CheckedBackbone:
    """Make the backbone, unless the caller has; it may load its network later."""
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
    if spec.scorer == "likelihood":
        from bench.engine.likelihoods import CheckedLikelihood

        return CheckedLikelihood(backbone, spec.label)
    from bench.engine.acceleration import set_precision
    from bench.engine.denoiser import CheckedDenoiser

    denoiser = CheckedDenoiser(backbone, spec.label)
    set_precision(denoiser.device, config.tf32)
    return denoiser


def _backbone_key(prepared: Prepared) -> str:
    config, spec, weights = prepared.config, prepared.resolved.backbone, prepared.weights
    fingerprint, rounding = weights.fingerprint if weights else "", " tf32" if config.tf32 else ""
    return f"{spec.name} {spec.version} {fingerprint} {config.dtype}{rounding}"


def _conditioning_key(prepared: Prepared) -> str:
    """Return all that decides a conditioning but its text: some models are told the resolution."""
    spec, chosen = prepared.resolved.backbone, prepared.resolved.backbone_parameters
    changed = {n: v for n, v in chosen.items() if v != spec.parameters[n].default}
    return f"{_backbone_key(prepared)} {sorted(changed.items())}"


def speed_key(prepared: Prepared) -> str:
    """Return all that decides a speed but the device, to remember the best batch size under."""
    config = prepared.config
    resolution = prepared.resolved.backbone_parameters.get("resolution")
    guided = "" if config.guidance is None else " guided"
    return f"{_backbone_key(prepared)} {resolution} {config.layout} {config.attention}{guided}"


def _chosen(config: RunConfig) -> int | None:
    return None if config.batch_size == "auto" else config.batch_size


def default_batch_size(device: str, latent_shape: tuple[int, ...]) -> int:
    """Return the cells of a batch: enough to fill the device, few wasted at the end.

    64 for small latents; for 64×64 ones (512 pixels) 4 on a CPU, where more is no faster, and 32
    on an accelerator, the reference implementation's.
    """
    most = 16_384 if device == "cpu" else 131_072  # latent pixels per batch
    return max(1, min(64, most // (latent_shape[-2] * latent_shape[-1])))
