"""Checks of a model on a few cells: that it fits its levels and images, and half precision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.backbone import Denoiser
from bench.contracts.strategy import Floats, Ints
from bench.discovery.targets import offers
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.stages import stage
from bench.running.question import PreparedRun
from bench.running.settings import key_of
from bench.store.identity import digest

if TYPE_CHECKING:
    import torch

    from bench.engine.denoising import DenoisingEngine

FIT_VERSION = 1  # of what is measured

CHECK_SHARE = 0.02  # largest share of the run's own evaluations


def check_model(run: PreparedRun, engine: DenoisingEngine) -> str | None:
    """Return a warning if the model does not seem to fit its noise levels or the run's images.

    See `bench.engine.sanity`. What was measured is remembered for the same weights and images. Not
    checked are runs of a few evaluations, items, controls, whose images are altered, and models
    without a null prompt, which may rightly be worse than a guess under another class's prompt.
    """
    import torch

    from bench.engine.sanity import ModelFit, affordable, check_fit

    least = run.strategy.at_least(engine.problem)  # None: the highest cost stands for it
    cost = run.strategy.at_most(engine.problem) if least is None else least
    images, scaled = affordable(CHECK_SHARE * cost * len(run.sample_ids))
    has_null = offers(engine.backbone.backbone, Denoiser.encode_null)
    if not images or not has_null or run.split.items or run.config.control is not None:
        return None
    loaded = [*map(str, run.backbone_key), run.split.fingerprint]
    settings = key_of(run.config, "data", "images", "network")
    key = digest({"measured": [FIT_VERSION, *loaded, settings, images, scaled]})
    path = cache_dir("fit") / f"{key}.json"
    if (stored := read_cached(path)) is not None:
        return ModelFit(**json.loads(stored)).problem
    latents = list(islice(_latents(run, engine), images))
    if not latents:
        return None
    prompt = engine.evaluator.pool.part(slice(0, 1))
    size = engine.batch_size
    try:
        with stage("Checking the model"):
            fit = check_fit(engine.backbone, torch.stack(latents), prompt, size, scaled)
    except torch.OutOfMemoryError:  # scoring shrinks its batches; a check is not worth that
        return None
    if fit is None:
        return None
    write_cached(path, json.dumps(asdict(fit)))
    return fit.problem


def _latents(run: PreparedRun, engine: DenoisingEngine) -> Iterator[torch.Tensor]:
    """Yield the latent of the first view of each readable image, float32 [C, H, W]."""
    for _, of_images in engine.latents.of(run.samples(run.sample_ids)):
        if not isinstance(of_images, str):
            yield of_images[0][0].float()


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
