"""A check without labels of whether the model fits its noise levels and the images of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from bench.contracts.backbone import Denoiser
from bench.discovery.targets import offers
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.running.prepared import PreparedRun
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
