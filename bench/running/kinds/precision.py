"""A check of half precision that was chosen automatically, on a few cells of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.strategy import Floats, Ints
from bench.running.prepared import PreparedRun

if TYPE_CHECKING:
    from bench.engine.denoising import DenoisingEngine

CELLS = 64  # number of cells compared with float32
PROMPTS = 8  # largest number of prompts among them
MAX_RELATIVE_ERROR = 0.2  # RMS error of paired differences / their standard deviation


def check_precision(run: PreparedRun, engine: DenoisingEngine) -> str | None:
    """Return a warning if 64 cells of a run in half precision differ too much from float32.

    Decisions rest on the difference between two prompts on one draw. So the root-mean-square error
    of these differences is compared with their standard deviation over prompts and draws. The
    network is loaded once more, in float32. Returns None without a check if there is a single
    prompt, or items have texts of their own.
    """
    import torch

    from bench.engine.denoising import DenoisingEngine

    texts = run.prompts.texts
    if len(texts) < 2 or run.split.items:
        return None
    prompts = _spread(min(PROMPTS, len(texts)), len(texts))
    draws = len(engine.problem.timesteps)
    chosen = _spread(min(draws, CELLS // len(prompts)), draws)
    rounded = _differences(engine, run, prompts, chosen)
    probed = replace(
        run.prompts,
        texts=tuple(texts[p] for p in prompts),
        sources=tuple(run.prompts.sources[p] for p in prompts),
        class_of_prompt=tuple(range(len(prompts))),
        parents=None,
    )
    half = run.dtype
    config = run.config.model_copy(update={"batch_size": PROMPTS, "compile": False})
    exactly = replace(
        run, config=config, dtype="float32", checks_dtype=False, prompts=probed, loaded=None
    )
    try:
        other = exactly.kind.open_engine(exactly)
        assert isinstance(other, DenoisingEngine)
        exact = _differences(other, run, np.arange(len(prompts)), chosen)
    except torch.OutOfMemoryError:
        return (
            f"--dtype auto chose {half}. Its accuracy was not checked, because there is no memory"
            " for a second network in float32."
        )
    error, spread = float(np.sqrt(((rounded - exact) ** 2).mean())), float(exact.std())
    if error <= MAX_RELATIVE_ERROR * spread:
        return None
    return (
        f"--dtype auto chose {half}, in which the difference between two prompts on a draw has an"
        f" error of {error:.2g} (root mean square), more than a fifth of its standard deviation"
        f" {spread:.2g} ({rounded.size} differences of one image). Decisions may differ from those"
        " in float32; --dtype float32 is safe."
    )


def _spread(count: int, of: int) -> Ints:
    """Return int64 [count], evenly spaced indices below `of`."""
    return np.arange(count) * of // count


def _differences(engine: DenoisingEngine, run: PreparedRun, prompts: Ints, draws: Ints) -> Floats:
    """Return float64 [P - 1, N]: errors of the first image, minus those of the first prompt."""
    import torch

    from bench.engine.batching import Batch
    from bench.engine.transfer import fetch
    from bench.inputs.pixels import decode

    sample = next(run.samples(run.sample_ids[:1]))
    with torch.inference_mode():
        latents = engine.backbone.encode_images([decode(sample.image)]).float()
        rows = []
        for prompt in prompts:
            cells = np.stack([np.full_like(draws, prompt), draws, np.zeros_like(draws)])
            batch = Batch(cells, latents, [sample.sample_id])
            rows.append(fetch(engine.evaluator.errors(batch))())
    errors = np.stack(rows).astype(np.float64)
    return np.asarray(errors[1:] - errors[0])
