"""What only the backbone's class can tell, checked before its weights are read."""

from __future__ import annotations

import numpy as np

from bench.contracts.strategy import Ints, Problem
from bench.discovery import backbones
from bench.errors import UserError
from bench.running.prepared import Prepared
from bench.running.resolve import Resolved
from bench.running.scorers.choose import kind_of


def check(prepared: Prepared) -> None:
    """Refuse a run that could not be scored; imports the backbone's class.

    Raises:
        UserError: weights are absent or damaged, a prompt is too long, or there are no gradients
            where the strategy needs them.
    """
    if prepared.absent:
        raise UserError(prepared.absent[0])
    resolved = prepared.resolved
    kind = kind_of(resolved)
    kind.check_settings(resolved)
    _check_weights(prepared)
    _check_token_lengths(prepared)
    _check_linearisable(resolved)
    resolved.strategy.check(problems(prepared)[-1][0])
    kind.check_abilities(prepared)


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
    kind = kind_of(prepared.resolved)
    return kind.problem(prepared, kind.columns(prepared.resolved, classes))


def _check_weights(prepared: Prepared) -> None:
    """Refuse weights that the backbone would refuse, as far as it knows without their tensors."""
    resolved = prepared.resolved
    backbones.check_weights(
        resolved.backbone,
        prepared.weights,
        dtype=resolved.dtype,
        **resolved.backbone_parameters,
    )


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
