"""What only the backbone's class, and a first batch, can tell before a run is scored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.decision import Engine
from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery import backbones
from bench.errors import UserError
from bench.running.prepared import Prepared, run_samples
from bench.running.resolve import Resolved
from bench.running.scorers import kind_of, open_engine

if TYPE_CHECKING:
    from bench.engine.denoising import DenoisingEngine


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


CELLS = 64
PROMPTS = 8
MAX_RELATIVE_ERROR = 0.2  # the error of the paired differences, in their standard deviations


def check_precision(prepared: Prepared, engine: Engine) -> str | None:
    """Compare the paired differences of 64 cells with those in float32; return what to warn of.

    Decisions rest on the difference between two prompts on one draw. So its error, as a root mean
    square, is compared with the standard deviation of these differences over prompts and draws.

    Args:
        prepared: a run in half precision.
        engine: what scores it; an engine without cells, or a run of a single prompt, passes.
    """
    import torch

    from bench.engine.denoising import DenoisingEngine

    texts, split = prepared.prompts.texts, prepared.split
    if not isinstance(engine, DenoisingEngine) or len(texts) < 2 or split is None or split.items:
        return None
    prompts = _spread(min(PROMPTS, len(texts)), len(texts))
    draws = len(engine.problem.timesteps)
    chosen = _spread(min(draws, CELLS // len(prompts)), draws)
    found = _differences(engine, prepared, prompts, chosen)
    few = replace(
        prepared.prompts,
        texts=tuple(texts[p] for p in prompts),
        sources=tuple(prepared.prompts.sources[p] for p in prompts),
        class_of_prompt=tuple(range(len(prompts))),
    )
    half = prepared.resolved.dtype
    config = prepared.config.model_copy(update={"batch_size": PROMPTS, "compile": False})
    resolved = replace(prepared.resolved, config=config, dtype="float32", checks_dtype=False)
    try:
        other = open_engine(replace(prepared, resolved=resolved, prompts=few, loaded=None))
        assert isinstance(other, DenoisingEngine)
        exact = _differences(other, prepared, np.arange(len(prompts)), chosen)
    except torch.OutOfMemoryError:
        return (
            f"--dtype auto chose {half}, and there is no memory for the network in"
            " float32 beside it: whether its errors are good enough was not checked."
        )
    error, spread = float(np.sqrt(((found - exact) ** 2).mean())), float(exact.std())
    if error <= MAX_RELATIVE_ERROR * spread:
        return None
    return (
        f"--dtype auto chose {half}, in which the differences between two prompts"
        f" on a draw are wrong by {error:.2g}, more than a fifth of their standard deviation"
        f" {spread:.2g} ({found.size} differences of one image). Decisions may differ from those in"
        " float32; --dtype float32 is safe."
    )


def _spread(count: int, of: int) -> Ints:
    """Return int64 [count], indices below `of`, evenly spread."""
    return np.arange(count) * of // count


def _differences(engine: DenoisingEngine, prepared: Prepared, prompts: Ints, draws: Ints) -> Floats:
    """Return float64 [P - 1, N]: errors of the run's first image less the first prompt's.

    Raises:
        UserError: the image cannot be opened.
    """
    import torch

    from bench.engine.queue import Batch
    from bench.engine.transfer import fetch
    from bench.inputs.pixels import decode

    sample = next(run_samples(prepared, prepared.sample_ids[:1]))
    with torch.inference_mode():
        latents = engine.backbone.encode_images([decode(sample.image)]).float()
        rows = []
        for prompt in prompts:
            cells = np.stack([np.full_like(draws, prompt), draws, np.zeros_like(draws)])
            batch = Batch(cells, latents, [sample.sample_id])
            rows.append(fetch(engine.evaluator.errors(batch))())
    errors = np.stack(rows).astype(np.float64)
    return np.asarray(errors[1:] - errors[0])
