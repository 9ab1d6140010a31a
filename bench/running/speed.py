"""Measure the speed of a backbone on this machine, by batch size."""

from __future__ import annotations

from timeit import repeat
from typing import TYPE_CHECKING

from bench.contracts.specs import DatasetSpec
from bench.errors import UserError
from bench.machine.environment import remember_batch_size, remember_speed
from bench.machine.offline import offline_if_set
from bench.running.estimate import evaluation_flops
from bench.running.kinds.denoiser import speed_key
from bench.running.prepare import AtHand, ask
from bench.running.settings import RunConfig
from bench.store.fields import Count, Document

if TYPE_CHECKING:
    import torch

CLASSES = ("0", "1")  # texts to any model, and labels to a class-conditional one


class Speed(Document):
    """The speed of one backbone on this machine."""

    backbone: str
    device: str
    dtype: str
    rates: dict[int, float]  # evaluations per second by batch size
    best_batch_size: Count  # smallest within 4 % of the fastest
    flops_per_evaluation: float | None  # None if unknown
    peak_flops: float  # operations per second of the device's fastest matrix product


@offline_if_set
def measure_speed(config: RunConfig, seconds: float = 15.0) -> Speed:
    """Measure made-up evaluations, and remember the result for runs and the estimates of plans.

    It takes about `seconds`, and reads no dataset. UserError: the backbone has no batches.
    """
    import torch

    from bench.engine.batching import device_name, rates_by_size, smallest_of_the_best
    from bench.engine.denoising import DenoisingEngine

    made_up = DatasetSpec(name="none", target="bench.running:none", classes=CLASSES)
    question = ask(config.model_copy(update={"batch_size": 1}), AtHand(made_up))
    name, dtype = question.backbone_name, question.dtype
    if not question.kind.batches_cells:
        raise UserError(f"Backbone {name!r} is not a denoiser: it has no batches.")
    question.check()
    engine = question.kind.open_engine(question)
    assert isinstance(engine, DenoisingEngine)
    device, rates = engine.backbone.device, rates_by_size(engine, seconds)
    best = smallest_of_the_best(rates)
    remember_batch_size(f"{speed_key(question)} {device_name(device)}", best)
    remember_speed(name, device.type, dtype, rates[best])
    return Speed(
        backbone=name,
        device=device_name(device),
        dtype=dtype,
        rates=rates,
        best_batch_size=best,
        flops_per_evaluation=evaluation_flops(question),
        peak_flops=matmul_peak(device, getattr(torch, dtype)),
    )


def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """Return the operations per second of the device's fastest product of n×n matrices, 2 n³ each.

    n is doubled until a product takes `seconds`, or to 16,384.
    """
    import torch

    best, shortest, side = 0.0, 0.0, 512
    while side <= 16_384 and shortest < seconds:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        # Reading a number waits for the device.
        shortest = min(repeat("(a @ b)[0, 0].item()", number=1, globals={"a": a, "b": b}))
        best, side = max(best, 2 * side**3 / shortest), 2 * side
    return best
