"""Devices, the record of the machine in a manifest, and measured or published speeds."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from filelock import FileLock

from bench.errors import UserError
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench.machine.libraries import torch

_PACKAGES = ("torch", "diffusers", "transformers", "datasets", "numpy", "pillow")


def pick_device(requested: str | None) -> str:
    """Return the best device, or the requested one; raise UserError if it is not available."""
    if requested is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(requested)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError or ValueError here
        raise UserError(
            f"--device {requested!r} cannot be used here: {str(error).splitlines()[0]}"
        ) from None
    return str(device)


def devices() -> list[str]:
    """Return descriptions of the devices that a run can use, best first."""
    names = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(number)
        names.append(f"cuda:{number}: {card.name}, {card.total_memory / 2**30:.0f} GiB")
    names += ["mps"] * torch.backends.mps.is_available()
    return [*names, f"cpu: {torch.get_num_threads()} threads"]


def device_memory(device: str) -> int | None:
    """Return the size of a device's memory in bytes, without importing torch; None if unknown."""
    device_type, _, number = device.partition(":")
    try:
        if device_type == "cpu":
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if device_type != "cuda":
            return None
        return int(_query_gpu("memory.total", number)) * 2**20
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError):
        return None


def _query_gpu(field: str, number: str = "") -> str:
    """Return a fact about a GPU from NVIDIA's driver (OSError or SubprocessError)."""
    command = ["nvidia-smi", f"--id={number or 0}", f"--query-gpu={field}"]
    command.append("--format=csv,noheader,nounits")
    answer = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10)
    return answer.strip()


def gpu(device: str) -> dict[str, str]:
    """Return a manifest's description of a GPU and of what computes on it."""
    card, backends = torch.cuda.get_device_properties(device), cast(Any, torch.backends)
    facts = {"model": card.name, "capability": f"{card.major}.{card.minor}"}
    with suppress(OSError, subprocess.SubprocessError):
        facts["driver"] = _query_gpu("driver_version")
    versions = {"cuda": torch.version.cuda, "cudnn": backends.cudnn.version()}
    return {**facts, **{name: str(value) for name, value in versions.items() if value}}


def has_bfloat16(device: str) -> bool:
    """Return whether a device supports bfloat16 in hardware, as NVIDIA GPUs since Ampere do."""
    if torch.device(device).type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def peak_memory() -> int | None:
    """Return the peak memory in bytes of the GPU, if used, or of this process; None if unknown."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def environment(plugins: Mapping[str, str], code: Mapping[str, str]) -> dict[str, object]:
    """Return a manifest's environment, with versions (`plugins`) and hashes (`code`) of plugins."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": dict(installed_packages()),
        "plugins": dict(plugins),
        "code": dict(code),
        "git": _git_state(),
    }


@cache
def installed_packages() -> dict[str, str]:
    """Return the version of each installed library that may influence results."""
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return packages


@cache
def installed_distributions() -> list[str]:
    """Return the names of installed distributions, `torch-2.6.0.dist-info`, in the path's order."""
    names: list[str] = []
    for folder in filter(Path.is_dir, map(Path, sys.path)):
        suffixes = (".dist-info", ".egg-info")
        names += sorted(path.name for path in folder.iterdir() if path.suffix in suffixes)
    return names


@cache  # because the code that a process has imported does not change
def _git_state() -> str | None:
    """Return the toolkit's commit, `+dirty` if files are modified; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+dirty"]
    try:
        return subprocess.check_output(
            command, cwd=root, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def likely_device(requested: str | None) -> str:
    """Return the type of device that a run would probably use, without importing torch."""
    if requested:
        return requested.partition(":")[0]
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


MEASURED_SECONDS = 1.0  # of scoring, after which a speed is remembered


def remember_speed(backbone: str, device: str, dtype: str, evaluations_per_second: float) -> None:
    """Store the measured speed of a backbone on a device."""
    _remember("speeds", f"{backbone} {device} {dtype}", evaluations_per_second)


def remember_batch_size(key: str, size: int) -> None:
    """Store the batch size that was measured to be best for `key`."""
    _remember("batch_sizes", key, size)


def remembered_batch_size(key: str) -> int | None:
    """Return the batch size stored for `key`; None if there is none."""
    size = _recall("batch_sizes").get(key)
    return int(size) if size else None


def estimate_speed(
    backbone: str,
    device: str,
    dtype: str,
    flops: float | None,
    tf32: bool = False,
    unit: str = "evaluations",
) -> tuple[float | None, str]:
    """Return a backbone's evaluations per second, None if unknown, and a text about the source.

    A speed measured on this machine is preferred to one assumed for the device. `flops` is the
    number of floating-point operations of one evaluation, which a classifier calls a pass (`unit`).
    """
    measured = _recall("speeds").get(f"{backbone} {device} {dtype}")
    if measured:
        return measured, f"measured on this machine: {measured:,.3g} {unit} per second"
    assumed = assumed_speed(device, dtype, tf32)
    if flops and assumed:
        return assumed / flops, f"assumed: {assumed / 1e12:.3g} TFLOP/s on {device}"
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
