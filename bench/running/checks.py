"""What only the backbone's class can tell, checked before its weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.backbone import LINEARISATION_COST, Denoiser, Likelihood
from bench.contracts.levels import Column, Levels
from bench.contracts.strategy import Ints, Problem
from bench.discovery import backbones
from bench.discovery.defaults import offers
from bench.discovery.targets import load_target, make
from bench.errors import UserError
from bench.inputs.controls import TEXT_ONLY
from bench.inputs.draws import read_noise
from bench.inputs.estimand import draw_weights
from bench.inputs.templates import make_columns
from bench.running.likelihoods import check_likelihood

if TYPE_CHECKING:
    from bench.inputs.weights import Weights
    from bench.running.prepared import Prepared
    from bench.running.resolve import Resolved


def check(prepared: Prepared) -> None:
    """Refuse a run that could not be scored; imports the backbone's class.

    Raises:
        UserError: weights are absent or damaged, a prompt is too long, or there are no gradients
            where the strategy needs them.
    """
    if prepared.absent:
        raise UserError(prepared.absent[0])
    check_likelihood(prepared.resolved)
    _check_text_alone(prepared.resolved)
    check_weights(prepared)
    _check_token_lengths(prepared)
    _check_linearisable(prepared.resolved)
    prepared.resolved.strategy.check(problems(prepared)[-1][0])
    _check_null_subtracted(prepared)
    _check_views(prepared)
    _check_abilities(prepared)
    if (levels := _level_table(prepared)) is not None:
        weights_of_draws(prepared, levels)


def _check_text_alone(resolved: Resolved) -> None:
    """Refuse `--control text-only` where the backbone cannot score a text without an image."""
    spec = resolved.backbone
    if resolved.config.control == TEXT_ONLY and not (
        spec.scorer == "likelihood" and offers(load_target(spec), Likelihood.prior)
    ):
        raise UserError(
            f"--control {TEXT_ONLY} needs a likelihood with prior(texts, draws), which backbone"
            f" {resolved.backbone_name!r} is not. --control grey works with every backbone."
        )


def problems(prepared: Prepared) -> list[tuple[Problem, int]]:
    """Return what an image may ask, and images per item, by the number of prompts.

    It is one problem, or one for each size of items or of candidates. Its draws have no levels
    yet, and its costs are those of the run.
    """
    split, config = prepared.split, prepared.config
    if split is not None and split.items is not None:
        shapes = sorted({(texts, images) for images, texts in split.items.table.shapes})
        return [(_problem(prepared, np.arange(texts)), images) for texts, images in shapes]
    classes = np.array(prepared.prompts.class_of_prompt)
    if not config.candidates_from:
        return [(_problem(prepared, classes), 1)]
    by_size = np.argsort(np.bincount(classes), kind="stable")
    few, many = (
        classes[np.isin(classes, chosen)]
        for chosen in (by_size[: config.top], by_size[-config.top :])
    )
    sizes = [few] if len(few) == len(many) else [few, many]
    return [(_problem(prepared, np.unique(of, return_inverse=True)[1]), 1) for of in sizes]


def _problem(prepared: Prepared, classes: Ints) -> Problem:
    """Return what an image asks that is decided among prompts of these classes, int64 [P]."""
    resolved, config = prepared.resolved, prepared.config
    denoiser = resolved.backbone.scorer == "denoiser"
    one = resolved.backbone.scorer == "classifier"
    draws = 1 if one else resolved.strategy_parameters["draws"]
    columns = make_columns(classes, config.template_rule, draws)
    passes = 2 if denoiser and config.guidance is not None else 1
    strategy = resolved.strategy
    price = LINEARISATION_COST
    if strategy.linearises:
        price = linearisation_cost(resolved, prepared.weights)
    return Problem(
        columns.class_of_column,
        np.arange(draws),
        np.ones(draws),
        can_linearise=strategy.linearises,
        cell_cost=columns.each * passes,
        null_cost=passes if config.subtract_null else 0,
        linearisation_cost=price,
    )


def weights_of_draws(prepared: Prepared, levels: Levels) -> Column:
    """Return float64 [N], the weight of each draw on a model's levels.

    Raises:
        UserError: the levels or weights asked for are not the model's.
    """
    resolved = prepared.resolved
    rows = resolved.plan.levels(resolved.strategy_parameters["draws"], len(levels))
    space = prepared.config.space
    return draw_weights(prepared.weighting, levels.rows(rows), space, rows, len(levels))


def _level_table(prepared: Prepared) -> Levels | None:
    resolved = prepared.resolved
    if resolved.backbone.scorer != "denoiser":
        return None
    return backbones.level_table(
        resolved.backbone, prepared.weights, **resolved.backbone_parameters
    )


def _check_null_subtracted(prepared: Prepared) -> None:
    """Refuse `--subtract-null` where it means nothing: where no images are compared."""
    resolved, split = prepared.resolved, prepared.split
    if not prepared.config.subtract_null:
        return
    images = 1 if split is None or split.items is None else split.items.table.shapes[0][0]
    if images == 1:
        raise UserError(
            "--subtract-null: subtracting the null's error changes no decision among texts of one"
            " image; it belongs to comparisons across images."
        )
    if not resolved.strategy.same_draws:
        raise UserError(
            f"--subtract-null: strategy {resolved.strategy_spec.name!r} gives no image and group"
            " score, which are what the null's error changes. Use --strategy full."
        )
    if not offers(load_target(resolved.backbone), Denoiser.encode_null):
        raise UserError(
            "--subtract-null needs a conditioning of no prompt, and backbone"
            f" {resolved.backbone_name!r} declares none (encode_null)."
        )


def _check_views(prepared: Prepared) -> None:
    """Refuse views that mean nothing with the backbone, or with another setting."""
    config, resolved = prepared.config, prepared.resolved
    if resolved.views is None:
        return
    if config.template_rule == "spread":
        raise UserError(
            f"--views {config.views} and --template-rule spread both spread over the draws; use"
            " one of them."
        )
    if not resolved.views.views.of_latents:
        return
    if resolved.backbone.scorer == "likelihood":
        raise UserError(
            f"--views {config.views} are samples of a latent, and backbone"
            f" {resolved.backbone_name!r} is a likelihood, which takes images."
        )
    if config.latent == "sample":
        raise UserError(f"--views {config.views} are samples of the latent; leave --latent out.")
    if not offers(load_target(resolved.backbone), Denoiser.posterior):
        raise UserError(
            f"--views {config.views} needs the latents' distribution, and backbone"
            f" {resolved.backbone_name!r} does not offer it (posterior)."
        )


def _check_abilities(prepared: Prepared) -> None:
    """Refuse settings that need what the backbone does not offer."""
    config, resolved = prepared.config, prepared.resolved
    target, name = load_target(resolved.backbone), resolved.backbone_name
    if config.guidance is not None and not offers(target, Denoiser.encode_null):
        raise UserError(
            f"--guidance needs a conditioning of no prompt, and backbone {name!r} declares none"
            " (encode_null)."
        )
    if config.latent == "sample" and not offers(target, Denoiser.posterior):
        raise UserError(
            f"--latent sample needs the latents' distribution, and backbone {name!r} does not"
            " offer it (posterior)."
        )


def check_weights(prepared: Prepared) -> None:
    """Refuse weights that the backbone would refuse, as far as it knows without their tensors."""
    resolved = prepared.resolved
    backbones.check_weights(
        resolved.backbone,
        prepared.weights,
        dtype=prepared.config.dtype,
        **resolved.backbone_parameters,
    )


def check_draws(prepared: Prepared) -> None:
    """Refuse levels, weights and noise that the user named and that do not fit the backbone.

    The backbone is made for that on the processor, where its class does not say enough.
    """
    config, resolved = prepared.config, prepared.resolved
    named = config.noise or config.levels or config.plan or prepared.weighting.name != "uniform"
    if resolved.backbone.scorer != "denoiser" or not named:
        return
    levels = _level_table(prepared)
    if levels is None or config.noise:
        from bench.engine.denoiser import CheckedDenoiser

        made = make(
            resolved.backbone,
            prepared.weights,
            device="cpu",
            dtype=config.dtype,
            **resolved.backbone_parameters,
        )
        backbone = CheckedDenoiser(made, resolved.backbone.label)
        levels = backbone.levels
        if config.noise:
            n_draws = resolved.strategy_parameters["draws"]
            read_noise(Path(config.noise), n_draws, backbone.latent_shape)
    weights_of_draws(prepared, levels)


def _check_token_lengths(prepared: Prepared) -> None:
    """Refuse prompts that the tokenizer would cut, where the backbone can count tokens."""
    counted = token_counts(prepared)
    if counted is None:
        return
    prompts, (counts, most) = prepared.prompts, counted
    for source, text, n in zip(prompts.sources, prompts.texts, counts, strict=True):
        if n > most:
            raise UserError(
                f"{source}: the prompt has {n} tokens and would be cut at {most}: {text!r}."
            )


def token_counts(prepared: Prepared) -> tuple[list[int], int] | None:
    """Return each prompt's tokens and the most there may be; None of a backbone without them."""
    return backbones.count_tokens(
        prepared.resolved.backbone, prepared.weights, prepared.prompts.texts
    )


def _check_linearisable(resolved: Resolved) -> None:
    """Refuse a strategy that linearises with a backbone that cannot."""
    if resolved.strategy.linearises and not backbones.can_linearise(resolved.backbone):
        name = resolved.strategy_spec.name
        raise UserError(
            f"Strategy {name!r} needs gradients to the text conditioning, and backbone"
            f" {resolved.backbone_name!r} does not offer them. `race` needs no gradients."
        )


def linearisation_cost(resolved: Resolved, weights: Weights | None) -> float:
    """Return what a linearised draw counts as, in evaluations: what the backbone's class says."""
    said = backbones.linearisation_cost(
        resolved.backbone, weights, resolved.backbone_parameters.get("resolution")
    )
    return LINEARISATION_COST if said is None else said
