"""The device to use, and the record of the machine in a manifest."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from bench.errors import UserError

_PACKAGES = ("torch", "diffusers", "transformers", "datasets", "numpy", "pillow")


def pick_device(wanted: str | None) -> str:
    """Return the wanted device, or the best of this machine.

    Raises:
        UserError: the wanted device is unknown or not there.
    """
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
    git: str | None


def environment(plugins: Mapping[str, str]) -> Environment:
    """Return versions of packages and plugins (distribution → version), git state and hardware."""
    packages = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
        "plugins": dict(plugins),
        "git": _git_state(),
    }


def _git_state() -> str | None:
    """Return the toolkit's commit, `+dirty` where its files differ; None outside a checkout."""
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
