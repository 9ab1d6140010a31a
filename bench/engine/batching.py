"""The batch size that is fastest here: measured once, remembered, never more than fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from bench.machine.speed import forget_larger, remember_batch_size, remembered_batch_size

SECONDS = 1.5  # what measuring may take
SLOW = 0.25  # seconds of one evaluation from which on a measurement costs more than it saves
ROUNDS = 3
GAIN = 0.04  # a larger batch that is faster by less only makes the run's end longer
SMALLEST, LARGEST = 8, 512


class Batched(Protocol):
    """The engine, or its lineariser: its batch size can be measured."""

    batch_size: int
    out_of_memory: Callable[[int], None]

    @property
    def backbone(self) -> Any:
        """The backbone; its `device` is read."""

    def rehearse(self, size: int) -> None:
        """Do one batch of `size` made-up cells and wait for it."""


def settle_batch_size(engine: Batched, key: str) -> None:
    """Give `engine` the batch size remembered under `key`, measured now where there is none.

    The key names all that decides the best size but the device: backbone, dtype, latent shape. A
    size at which memory runs out later is forgotten in favour of the one that fitted.
    """
    key = f"{key} {device_name(engine.backbone.device)}"
    size = remembered_batch_size(key)
    if size is None:
        size = best_batch_size(engine)
        remember_batch_size(key, size)
    engine.batch_size = size
    engine.out_of_memory = lambda fits: forget_larger(key, fits)


def best_batch_size(engine: Batched) -> int:
    """Return the smallest batch size whose cells per second are within 4 % of the best.

    Sizes double until a batch takes too long or memory runs out. They are timed in turns, so that
    a disturbance of the machine affects all of them. Where measuring would take too long, the
    engine's own batch size is returned.
    """
    started = time.perf_counter()
    engine.rehearse(1)
    if _seconds(engine, 1) > SLOW:
        return engine.batch_size
    on_cpu = engine.backbone.device.type == "cpu"
    seconds: dict[int, float] = {}
    size = SMALLEST
    while size <= LARGEST:
        try:
            engine.rehearse(size)  # the first of a shape prepares kernels
            seconds[size] = _seconds(engine, size)
        except torch.OutOfMemoryError:
            break
        spent = time.perf_counter() - started
        if on_cpu and spent + 2 * ROUNDS * seconds[size] > SECONDS:
            break
        # A GPU's times are steady enough to stop at the first size that gains nothing.
        if not on_cpu and size > SMALLEST and seconds[size] > (2 - GAIN) * seconds[size // 2]:
            break
        size *= 2
    if engine.backbone.device.type == "cuda":
        torch.cuda.empty_cache()
    for _ in range(ROUNDS - 1):
        for size in seconds:
            seconds[size] = min(seconds[size], _seconds(engine, size))
    if not seconds:
        return SMALLEST // 2  # the run halves it further where it does not fit
    return smallest_of_the_best({size: size / s for size, s in seconds.items()})


def smallest_of_the_best(rates: Mapping[int, float]) -> int:
    """Return the smallest batch size whose cells per second are within 4 % of the best."""
    return min(size for size, rate in rates.items() if rate >= max(rates.values()) * (1 - GAIN))


def device_name(device: torch.device) -> str:
    """Return the name of a device for its speed: the GPU's model, or the CPU's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.get_num_threads()} threads"


def _seconds(engine: Batched, size: int) -> float:
    started = time.perf_counter()
    engine.rehearse(size)
    return time.perf_counter() - started
