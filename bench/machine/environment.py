"""The device to use, the record of the machine in a manifest, and its remembered measurements."""

from __future__ import annotations

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
from typing import TypedDict

from filelock import FileLock

from bench.errors import UserError
from bench.machine.cache import cache_dir, keep, recall
from bench.machine.devices import assumed_speed

_PACKAGES = ("torch", "diffusers", "transformers", "datasets", "numpy", "pillow")


def pick_device(wanted: str | None) -> str:
    """Return the wanted device (UserError: it is not there), or the best of this machine."""
    import torch

    if wanted is None:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except Exception as error:  # torch raises RuntimeError, AssertionError or ValueError here
        raise UserError(
            f"--device {wanted!r} cannot be used here: {str(error).splitlines()[0]}"
        ) from None
    return str(device)


def devices() -> list[str]:
    """Return the devices that a run may use, best first, with their memory where it is known."""
    import torch

    names = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(number)
        names.append(f"cuda:{number}: {card.name}, {card.total_memory / 2**30:.0f} GiB")
    names += ["mps"] * torch.backends.mps.is_available()
    return [*names, f"cpu: {torch.get_num_threads()} threads"]


def device_memory(device: str) -> int | None:
    """Return the bytes of a device's memory, without importing torch; None if unknown."""
    kind, _, number = device.partition(":")
    try:
        if kind == "cpu":
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if kind != "cuda":
            return None
        command = ["nvidia-smi", f"--id={number or 0}", "--query-gpu=memory.total"]
        command.append("--format=csv,noheader,nounits")
        total = subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10)
        return int(total) * 2**20
    except (OSError, ValueError, AttributeError, subprocess.SubprocessError):
        return None


def has_bfloat16(device: str) -> bool:
    """Return whether a device multiplies in bfloat16 itself: NVIDIA GPUs from Ampere on."""
    import torch

    if torch.device(device).type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def peak_memory() -> int | None:
    """Return the most memory used so far in bytes: the GPU's if one is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Environment(TypedDict):
    """Record of where a run was made, for its manifest."""

    python: str
    platform: str
    cpus: int | None
    packages: dict[str, str]
    plugins: dict[str, str]
    code: dict[str, str]
    git: str | None


def environment(plugins: Mapping[str, str], code: Mapping[str, str]) -> Environment:
    """Return versions of packages and plugins, hashes of sources, git state and hardware.

    Args:
        plugins: distribution → version.
        code: distribution → hash of its sources.
    """
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
    """Return the version of each library that computes; those that are absent are left out."""
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return packages


@cache
def _git_state() -> str | None:
    """Return the toolkit's commit, `+dirty` where its files differ; None outside a checkout.

    Asked once: what a process has imported stays as it was.
    """
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
    backbone: str, device: str, dtype: str, flops: float | None, tf32: bool = False
) -> tuple[float | None, str]:
    """Return evaluations per second, None if unknown, and the source of the number."""
    measured = _recall("speeds").get(f"{backbone} {device} {dtype}")
    if measured:
        return measured, f"measured on this machine: {measured:,.0f} evaluations per second"
    assumed = assumed_speed(device, dtype, tf32)
    if flops and assumed:
        return assumed / flops, f"assumed: {assumed / 1e12:.3g} TFLOP/s on {device}"
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
