"""Speeds of devices: measured on this machine and remembered, or assumed from published peaks."""

import json
from contextlib import suppress

from filelock import FileLock

from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.precision import Precision

MEASURED_SECONDS = 1.0  # of scoring, after which a speed is remembered


def remember_speed(
    backbone: str, device: str, precision: Precision, evaluations_per_second: float
) -> None:
    """Store the measured speed of a backbone on a device."""
    _remember("speeds", f"{backbone} {device} {precision}", evaluations_per_second)


def remember_batch_size(key: str, size: int) -> None:
    """Store the batch size that was measured to be best for `key`."""
    _remember("batch_sizes", key, size)


def remembered_batch_size(key: str) -> int | None:
    """Return the batch size stored for `key`; None if there is none."""
    size = _recall("batch_sizes").get(key)
    return int(size) if size else None


def estimate_speed(
    backbone: str, device: str, precision: Precision, flops: float | None, unit: str = "evaluations"
) -> tuple[float | None, str]:
    """Return a backbone's evaluations per second, None if unknown, and a text about the source.

    A speed measured on this machine is preferred to one assumed for the device. `flops` is the
    number of floating-point operations of one evaluation, which a classifier calls a pass (`unit`).
    """
    measured = _recall("speeds").get(f"{backbone} {device} {precision}")
    if measured:
        return measured, f"measured on this machine: {measured:,.3g} {unit} per second"
    assumed = assumed_speed(device, precision)
    if flops and assumed:
        return assumed / flops, f"assumed: {assumed / 1e12:.3g} TFLOP/s in {precision} on {device}"
    return None, f"unknown until a run of it has scored for {MEASURED_SECONDS:g} s"


def _remember(table: str, key: str, value: float) -> None:
    path = cache_dir() / f"{table}.bin"
    # Without the lock, one of two concurrent runs would overwrite the other's value.
    with suppress(OSError), FileLock(f"{path}.lock"):
        write_cached(path, json.dumps({**_recall(table), key: value}, indent=1))


def _recall(table: str) -> dict[str, float]:
    try:
        stored = json.loads(read_cached(cache_dir() / f"{table}.bin") or "{}")
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


# Operations per second, dense, with sums in float32, from the data sheets of NVIDIA A100 80 GB SXM
# (2021) and H100 SXM (2023), and from "NVIDIA Ada GPU architecture" (2022), appendix A.
PerPrecision = dict[Precision, float]
PEAKS: dict[str, PerPrecision] = {
    "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12, "float16": 312e12},
    "H100": {"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12, "float16": 989.4e12},
    "RTX 4090": {"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12, "float16": 165.2e12},
}
UNNAMED_GPU = "A100"  # assumed for a GPU of unknown name

# Share of its peak that a GPU reaches. In half precision, public diffusion classifiers reach 62 to
# 74 TFLOP/s on an A100, 20 to 24 % of its peak: about half of what a roofline of Stable Diffusion
# 2.1-base at 512 px allows (40 % on an H100). The others are assumed: half of that roofline's 38 %
# in TF32 and 67 % in float32.
UTILISATION: PerPrecision = {"float32": 0.33, "tf32": 0.19, "bfloat16": 0.2, "float16": 0.2}

# Operations per second: a guess for Apple's GPUs, and for CPUs a conservative value compared with
# the 90 GFLOP/s that two cores reach with the tiny backbone.
_ASSUMED = {"mps": 5e12, "cpu": 50e9}


def assumed_speed(device: str, precision: Precision) -> float | None:
    """Return a device's assumed floating-point operations per second; None if unknown.

    The device is cuda, mps, cpu or a name in `PEAKS`.
    """
    peaks = PEAKS.get(UNNAMED_GPU if device == "cuda" else device)
    return UTILISATION[precision] * peaks[precision] if peaks else _ASSUMED.get(device)


def seconds_on_devices(operations: float, precision: Precision) -> dict[str, float]:
    """Return the estimated seconds for a number of operations on each device in `PEAKS`."""
    return {
        name: operations / (UTILISATION[precision] * peaks[precision])
        for name, peaks in PEAKS.items()
    }
