"""How fast a backbone ran on this machine, remembered for the next plan's estimate of time."""

from __future__ import annotations

import json
import shutil

from bench.cache import cache_dir, keep

# Where nothing was measured, in floating-point operations a second: what public diffusion
# classifiers reach on data-centre GPUs (62 to 74 TFLOP/s), a guess for Apple's, and on the safe
# side of what two cores reach with the tiny backbone (90 GFLOP/s).
ASSUMED = {"cuda": 60e12, "mps": 5e12, "cpu": 50e9}


def likely_device(wanted: str | None) -> str:
    """Return the kind of device a run would take, without asking torch."""
    if wanted:
        return wanted.partition(":")[0]
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


def remember_speed(backbone: str, device: str, dtype: str, evaluations_per_second: float) -> None:
    """Keep the speed of a run that was long enough to tell."""
    speeds = _speeds()
    speeds[f"{backbone} {device} {dtype}"] = evaluations_per_second
    keep(cache_dir() / "speeds.json", json.dumps(speeds, indent=1))


def estimate(
    backbone: str, device: str, dtype: str, flops: float | None
) -> tuple[float | None, str]:
    """Return evaluations a second, None where nothing is known, and what that rests on."""
    measured = _speeds().get(f"{backbone} {device} {dtype}")
    if measured:
        return measured, f"measured on this machine: {measured:,.0f} evaluations a second"
    if flops and device in ASSUMED:
        return ASSUMED[device] / flops, f"assumed: {ASSUMED[device] / 1e12:g} TFLOP/s on {device}"
    return None, "unknown: this backbone has not run on this machine yet"


def _speeds() -> dict[str, float]:
    try:
        speeds: dict[str, float] = json.loads((cache_dir() / "speeds.json").read_text())
    except (OSError, ValueError):
        return {}
    return speeds
