"""Published speeds of devices, and the time that operations take on them.

Peaks are those of the makers' data sheets, dense, in floating-point operations per second: NVIDIA
A100 80 GB SXM (2021), H100 SXM (2023), and "NVIDIA Ada GPU architecture" (2022), appendix A, with
products added in float32.
"""

from __future__ import annotations

REACHED = 0.2
"""Share of its peak that a device is assumed to reach: public diffusion classifiers reach 62 to
74 TFLOP/s in bfloat16 on an A100, 20 to 24 % of its peak."""

PEAKS = {
    "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
    "H100": {"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12},
    "RTX 4090": {"float32": 82.6e12, "tf32": 82.6e12, "bfloat16": 165.2e12},
}
UNNAMED_GPU = "A100"  # stands for a GPU whose name is not known

# In operations per second: a guess for Apple's GPUs, and on the safe side of what two cores reach
# with the tiny backbone (90 GFLOP/s).
_ASSUMED = {"mps": 5e12, "cpu": 50e9}


def assumed_speed(device: str, dtype: str, tf32: bool = False) -> float | None:
    """Return the operations per second that a name of `PEAKS`, cuda, mps or cpu is assumed to do.

    float16 is as fast as bfloat16. None: nothing is assumed of such a device.
    """
    peaks = PEAKS.get(UNNAMED_GPU if device == "cuda" else device)
    if peaks is None:
        return _ASSUMED.get(device)
    if dtype == "float32":
        return REACHED * peaks["tf32" if tf32 else dtype]
    return REACHED * peaks["bfloat16"]


def seconds_on_devices(operations: float, dtype: str, tf32: bool = False) -> dict[str, float]:
    """Return the seconds that operations would take on each device of `PEAKS`."""
    speeds = {name: assumed_speed(name, dtype, tf32) for name in PEAKS}
    return {name: operations / speed for name, speed in speeds.items() if speed}
