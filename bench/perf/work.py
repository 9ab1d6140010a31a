"""The things that are timed: the bare network, the engine under a strategy, a plain loop."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Strategy
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.scoring import cell_errors, mixed, times
from bench.engine.trees import Tree, count, rows
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


@torch.inference_mode()
def evaluation_flops(backbone: CheckedDenoiser, conditioning: Tree) -> float:
    """Return the operations of one evaluation, counted while one runs.

    Args:
        backbone: the denoiser.
        conditioning: as `encode_prompts` gives it.
    """
    x_t = torch.zeros(1, *backbone.latent_shape, device=backbone.device)
    t = times(backbone.levels, np.array([len(backbone.levels) // 2])).to(backbone.device)
    with FlopCounterMode(display=False) as counter:
        backbone.denoise(x_t, t, rows(conditioning, slice(0, 1)))
    return float(counter.get_total_flops())


def bare(backbone: CheckedDenoiser, conditioning: Tree, batch_size: int, cells: int) -> Work:
    """Return work that calls the network on at least `cells` cells, and does nothing else."""
    prompt = torch.arange(batch_size, device=backbone.device) % count(conditioning)
    x_t = torch.randn(batch_size, *backbone.latent_shape).to(backbone.device)
    even = np.linspace(0, len(backbone.levels) - 1, batch_size).astype(np.int64)
    t = times(backbone.levels, even).to(backbone.device)
    chosen = rows(conditioning, prompt)
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
    engine: DenoisingEngine, conditioning: Tree, samples: list[Sample], cells: int
) -> Work:
    """Return work that scores as one would first write it: image by image, draw by draw.

    All prompts of one draw are a batch, and its errors are read before the next one begins. The
    cells and their errors are those of the engine's full sweep.

    Args:
        engine: gives backbone, draws and noise, which its images share.
        conditioning: as `encode_prompts` gives it.
        samples: the images, over and over.
        cells: work ends with the draw in which so many are reached.
    """
    backbone, scoring = engine.backbone, engine.evaluator.scoring
    draws, prompts = scoring.draws, count(conditioning)

    @torch.inference_mode()
    def work() -> int:
        done = position = 0
        while done < cells:
            image = decode(samples[position % len(samples)].image)
            latent = backbone.encode_images([image]).float()
            latents = latent.expand(prompts, *latent.shape[1:])
            for k in range(len(draws.alpha)):
                draw = torch.full((prompts,), k, device=backbone.device)
                eps = scoring.noise.of([], np.empty((2, 0), np.int64), draw)
                x_t = mixed(latents, eps, draws.alpha[draw], draws.sigma[draw])
                answer = backbone.denoise(x_t, draws.time[draw], conditioning)
                wanted = mixed(latents, eps, draws.p[draw], draws.q[draw])
                cell_errors(answer, wanted, draws.factor[draw], scoring.loss).tolist()
                done += prompts
                if done >= cells:
                    break
            position += 1
        return done

    return work
