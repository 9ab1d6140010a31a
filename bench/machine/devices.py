"""Published speeds of devices, and estimates of the time that operations take on them."""

from __future__ import annotations

PEAK_UTILISATION = 0.2
"""Fraction of its peak that a device is assumed to reach. Public diffusion classifiers reach 62 to
74 TFLOP/s in bfloat16 on an A100, 20 to 24 % of its peak."""

# Floating-point operations per second, dense, from the data sheets of NVIDIA A100 80 GB SXM (2021)
# and H100 SXM (2023), and from "NVIDIA Ada GPU architecture" (2022), appendix A, with float32
# accumulation.
PEAKS = {
    "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
    "H100": {"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12},
    "RTX 4090": {"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12},
}
UNNAMED_GPU = "A100"  # assumed for a GPU of unknown name

# Operations per second: a guess for Apple's GPUs, and for CPUs a conservative value compared with
# the 90 GFLOP/s that two cores reach with the tiny backbone.
_ASSUMED = {"mps": 5e12, "cpu": 50e9}


def assumed_speed(device: str, dtype: str, tf32: bool = False) -> float | None:
    """Return a device's assumed floating-point operations per second; None if unknown.

    The device is cuda, mps, cpu or a name in `PEAKS`. float16 counts as bfloat16.
    """
    peaks = PEAKS.get(UNNAMED_GPU if device == "cuda" else device)
    if peaks is None:
        return _ASSUMED.get(device)
    if dtype == "float32":
        return PEAK_UTILISATION * peaks["tf32" if tf32 else dtype]
    return PEAK_UTILISATION * peaks["bfloat16"]


def seconds_on_devices(operations: float, dtype: str, tf32: bool = False) -> dict[str, float]:
    """Return the estimated seconds for a number of operations on each device in `PEAKS`."""
    speeds = {name: assumed_speed(name, dtype, tf32) for name in PEAKS}
    return {name: operations / speed for name, speed in speeds.items() if speed}
