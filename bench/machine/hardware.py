"""What the device can do, and what an evaluation asks of it."""

from __future__ import annotations

import time

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@torch.inference_mode()
def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Return the floating-point operations per second of the device's best matrix product.

    Products of square matrices of doubling sides, 2 n³ operations each, until one takes a tenth of
    `seconds`; the best of several repetitions.
    """
    best, side, started = 0.0, 512, time.perf_counter()
    while side <= 16_384:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        a @ b
        took = min(_product(a, b) for _ in range(5))
        best = max(best, 2 * side**3 / took)
        if took > seconds / 10 or time.perf_counter() - started > 3 * seconds:
            break
        side *= 2
    return best


def _product(a: torch.Tensor, b: torch.Tensor) -> float:
    synchronize(a.device)
    started = time.perf_counter()
    a @ b
    synchronize(a.device)
    return time.perf_counter() - started
