"""Remembered measurements of this machine: speeds, and the best batch sizes."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

from filelock import FileLock

from bench.machine.cache import cache_dir, keep, recall

# Where nothing was measured, in floating-point operations per second: what public diffusion
# classifiers reach on data-centre GPUs (62 to 74 TFLOP/s), a guess for Apple's, and on the safe
# side of what two cores reach with the tiny backbone (90 GFLOP/s).
ASSUMED = {"cuda": 60e12, "mps": 5e12, "cpu": 50e9}


def likely_device(wanted: str | None) -> str:
    """Return the kind of device a run would take, without importing torch."""
    if wanted:
        return wanted.partition(":")[0]
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


def remember_speed(backbone: str, device: str, dtype: str, evaluations_per_second: float) -> None:
    """Keep the speed of a run that was long enough to measure it."""
    _remember("speeds", f"{backbone} {device} {dtype}", evaluations_per_second)


def remember_batch_size(key: str, size: int) -> None:
    """Keep the batch size that was measured to be best for `key`."""
    _remember("batch_sizes", key, size)


def forget_larger(key: str, size: int) -> None:
    """Lower the batch size kept for `key` to one that fits into memory."""
    remember_batch_size(key, min(size, remembered_batch_size(key) or size))


def remembered_batch_size(key: str) -> int | None:
    """Return the batch size kept for `key`, None where there is none."""
    size = _recall("batch_sizes").get(key)
    return int(size) if size else None


def estimate(
    backbone: str, device: str, dtype: str, flops: float | None
) -> tuple[float | None, str]:
    """Return evaluations per second, None if unknown, and the source of the number."""
    measured = _recall("speeds").get(f"{backbone} {device} {dtype}")
    if measured:
        return measured, f"measured on this machine: {measured:,.0f} evaluations per second"
    if flops and device in ASSUMED:
        return ASSUMED[device] / flops, f"assumed: {ASSUMED[device] / 1e12:g} TFLOP/s on {device}"
    return None, "unknown: this backbone has not run on this machine yet"


def _remember(kind: str, key: str, value: float) -> None:
    path = cache_dir() / f"{kind}.bin"
    # Locked, or one of two runs would forget the other's; without a lock nothing is kept.
    with suppress(OSError), FileLock(f"{path}.lock"):
        keep(path, json.dumps({**_recall(kind), key: value}, indent=1))


def _recall(kind: str) -> dict[str, float]:
    try:
        stored = json.loads(recall(cache_dir() / f"{kind}.bin") or "{}")
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}
