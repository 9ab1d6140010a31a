"""The size of a batch: measured once, and lowered where memory ends."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from helpers.engines import assert_same, limit_memory, outcomes, prepared

import bench as toolkit
from bench.contracts.backbone import Denoiser
from bench.contracts.decision import Decided
from bench.contracts.strategy import Ints
from bench.engine import batching
from bench.machine.speeds import remembered_batch_size


def test_the_best_batch_size_is_the_smallest_of_the_fast_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device whose time does not grow up to 64 cells and is proportional beyond."""
    backbone = toolkit.load_backbone("tiny-digits")
    now = 0.0
    monkeypatch.setattr("bench.engine.batching.time.perf_counter", lambda: now)

    class Device:
        def __init__(self) -> None:
            self.batch_size = 7
            self.backbone: Denoiser = backbone
            self.out_of_memory: Callable[[int], None] = lambda fits: None

        def rehearse(self, size: int) -> None:
            nonlocal now
            if size > 128:
                raise torch.OutOfMemoryError("simulated")
            now += 0.02 * max(1, size / 64)

    assert batching.best_batch_size(Device()) == 64

    class Slow(Device):
        def rehearse(self, size: int) -> None:
            nonlocal now
            now += 0.3

    assert batching.best_batch_size(Slow()) == 7

    class Uneven(Device):  # a size that gains nothing, before one that does
        def rehearse(self, size: int) -> None:
            nonlocal now
            now += 0.04 if size == 32 else 0.02

    assert batching.best_batch_size(Uneven()) == max(batching.rates_by_size(Uneven(), 60.0)) > 64

    class Disturbed(Device):  # a GPU, once slowed down by something else
        def __init__(self) -> None:
            super().__init__()
            self.backbone = cast(Denoiser, SimpleNamespace(device=torch.device("cuda")))
            self.rehearsed: list[int] = []

        def rehearse(self, size: int) -> None:
            nonlocal now
            self.rehearsed.append(size)
            super().rehearse(size)
            if self.rehearsed.count(16) == 2 and self.rehearsed[-1] == 16:  # its first timing
                now += 1

    gpu = Disturbed()
    assert batching.best_batch_size(gpu) == 64 and 16 in gpu.rehearsed


def test_a_remembered_size_is_that_of_the_threads() -> None:
    assert batching.device_name(torch.device("cpu")) == f"cpu {torch.get_num_threads()} threads"


def test_one_cell_that_needs_too_much_memory_is_an_error() -> None:
    engine, _, _ = prepared(batch_size=8, seed=0)
    sizes: list[int] = []

    def work(cells: Ints) -> torch.Tensor:
        sizes.append(len(cells))
        raise torch.OutOfMemoryError("simulated")

    with pytest.raises(torch.OutOfMemoryError):
        engine.in_batches(np.arange(8), work)
    assert sizes == [8, 4, 2, 1]


def test_memory_that_ends_is_remembered(
    wanted: dict[str, Decided], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "best_batch_size", lambda engine: 40)
    engine, run, samples = prepared(batch_size="auto", seed=0, layout="channels-last")
    sizes = limit_memory(monkeypatch, engine, cells=12)
    assert_same(outcomes(engine, run, samples), wanted)
    assert engine.batch_size == 10 and sizes[:3] == [40, 20, 10] and max(sizes[2:]) == 10
    assert prepared(batch_size="auto", layout="channels-last")[0].batch_size == 10
    assert remembered_batch_size("another") is None
