"""The things that are timed: the bare network, the engine under a strategy, a plain loop."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.contracts.backbone import Denoiser
from bench.contracts.dataset import Sample
from bench.contracts.strategy import Strategy
from bench.engine.denoising import DenoisingEngine
from bench.engine.scoring import add_noise, cell_errors, target
from bench.inputs.pixels import decode
from bench.machine.hardware import synchronize
from bench.perf.timing import Work


class _EnoughError(Exception):
    """The engine has done what was to be timed."""


def pictures(resolution: int, count: int = 32) -> list[Sample]:
    """Return made-up pictures, smooth random colours, with the labels all 0."""
    rng = np.random.default_rng(0)
    samples = []
    for position in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        file = BytesIO()
        coarse.resize((resolution, resolution), Image.Resampling.BICUBIC).save(file, "PNG")
        samples.append(Sample(f"picture-{position}", 0, {"bytes": file.getvalue(), "path": None}))
    return samples


def bare(backbone: Denoiser, conditioning: torch.Tensor, batch_size: int, cells: int) -> Work:
    """Return work that calls the network on at least `cells` cells, and does nothing else."""
    prompt = torch.arange(batch_size, device=backbone.device) % len(conditioning)
    x_t = torch.randn(batch_size, *backbone.latent_shape).to(backbone.device)
    t = torch.linspace(0, len(backbone.alphas_cumprod) - 1, batch_size).long().to(backbone.device)
    chosen = conditioning[prompt]
    batches = max(1, round(cells / batch_size))

    @torch.inference_mode()
    def work() -> int:
        for _ in range(batches):
            backbone.denoise(x_t, t, chosen)
        synchronize(backbone.device)
        return batches * batch_size

    return work


def scoring(engine: DenoisingEngine, strategy: Strategy, samples: list[Sample], cells: int) -> Work:
    """Return work that scores images with the engine until it has done `cells` evaluations.

    Images are opened, encoded, asked about and decided as in a run; they never run out, so that
    the end of a run, where batches are no longer full, is not part of it. A linearised draw counts
    as the evaluations that it costs.
    """

    def endless() -> Iterator[Sample]:
        while True:
            yield from samples

    def work() -> float:
        before, denoise = engine.evaluated, engine.backbone.denoise

        def until(*arguments: Any) -> torch.Tensor:
            if engine.evaluated - before >= cells:
                raise _EnoughError
            return denoise(*arguments)

        # In this one instance, and only while it is timed.
        engine.backbone.denoise = until  # type: ignore[method-assign, assignment]
        try:
            for _ in engine.score(endless(), strategy):
                pass
        except _EnoughError:
            synchronize(engine.backbone.device)
        finally:
            del engine.backbone.denoise
        return engine.evaluated - before

    return work


def one_at_a_time(
    engine: DenoisingEngine, conditioning: torch.Tensor, samples: list[Sample], cells: int
) -> Work:
    """Return work that scores as one would first write it: image by image, draw by draw.

    All prompts of one draw are a batch, and its errors are read before the next one begins. The
    cells and their errors are those of the engine's full sweep.

    Args:
        engine: gives backbone, draws and noise.
        conditioning: [P, L, D], as `encode_prompts` gives it.
        samples: the images, over and over.
        cells: work ends with the draw in which so many are reached.
    """
    backbone, draws = engine.backbone, engine.draws

    @torch.inference_mode()
    def work() -> int:
        done = position = 0
        while done < cells:
            latent = backbone.encode_images(
                [decode(samples[position % len(samples)].image)]
            ).float()
            latents = latent.expand(len(conditioning), *latent.shape[1:])
            for k in range(len(engine.timesteps)):
                draw = torch.full((len(conditioning),), k, device=backbone.device)
                alpha, sigma, eps = draws.alpha[draw], draws.sigma[draw], engine.noise[draw]
                x_t = add_noise(latents, eps, alpha, sigma)
                prediction = backbone.denoise(x_t, engine.timesteps[draw], conditioning)
                wanted = target(backbone.prediction_type, latents, eps, alpha, sigma)
                cell_errors(prediction, wanted, draws.factor[draw], engine.loss).tolist()
                done += len(conditioning)
                if done >= cells:
                    break
            position += 1
        return done

    return work
