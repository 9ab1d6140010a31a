"""Does a run in half precision decide as one in float32? Asked of 64 cells before it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.decision import Engine
from bench.contracts.strategy import Floats, Ints
from bench.running.preparing.samples import run_samples
from bench.running.scorers.choose import open_engine

if TYPE_CHECKING:
    from bench.engine.denoising import DenoisingEngine
    from bench.running.prepared import Prepared

CELLS = 64
PROMPTS = 8
MOST = 0.2  # the error of the paired differences, in their standard deviations


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
    if error <= MOST * spread:
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
