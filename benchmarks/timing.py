"""Workloads of benchmarks (the network alone, and the engine under a strategy) and their timing.

Other processes disturb a measurement, so speeds are medians over interleaved rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.contracts.dataset import Sample
from bench.engine.asking import CheckedStrategy
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.scoring import times
from bench.engine.trees import Tree, count, rows

Work = Callable[[], float]  # evaluates cells and returns their number


class _EnoughError(Exception):
    """Raised in the network to end a workload after enough evaluations."""


def pictures(resolution: int, count: int = 32) -> list[Sample]:
    """Return made-up PNG images of smooth random colours, all with label 0."""
    rng = np.random.default_rng(0)
    samples = []
    for position in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        file = BytesIO()
        coarse.resize((resolution, resolution), Image.Resampling.BICUBIC).save(file, "PNG")
        samples.append(Sample(f"picture-{position}", 0, {"bytes": file.getvalue(), "path": None}))
    return samples


def bare(backbone: CheckedDenoiser, conditioning: Tree, batch_size: int, cells: int) -> Work:
    """Return a workload that only calls the network, on about `cells` cells in full batches."""
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


def scoring(
    engine: DenoisingEngine, strategy: CheckedStrategy, samples: list[Sample], cells: int
) -> Work:
    """Return a workload that scores images with the engine until it has done `cells` evaluations.

    Images are opened, encoded and decided as in a run. They are repeated endlessly, so that the end
    of a run, where batches are no longer full, is not timed. A linearised draw counts as the
    evaluations that it costs.
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

        # Patches this instance only, and only while it is timed.
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


def in_turns(
    works: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the cells per second of each workload, one value per round.

    Each round runs every workload once (ABCABC…), so that a disturbance affects all of them. A
    first round for warming up is not counted. With `time.process_time` as the clock, a single
    thread can be timed although other processes are busy.
    """
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            started = clock()
            cells = work()
            if turn:
                rates[name].append(cells / (clock() - started))
    return rates


def ratio(rates: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return the speed of `name` relative to `base`, as the median ratio over rounds."""
    return median(a / b for a, b in zip(rates[name], rates[base], strict=True))


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
