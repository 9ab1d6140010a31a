"""The machine: the device to use, and what a manifest records of where a run was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from bench.errors import UserError

_PACKAGES = ("torch", "diffusers", "transformers", "datasets", "numpy", "pillow")


def pick_device(wanted: str | None) -> str:
    """Return the device to use: the wanted one, or the best there is.

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

    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(number)
        found.append(f"cuda:{number}: {card.name}, {card.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, f"cpu: {torch.get_num_threads()} threads"]


def has_bfloat16(device: str) -> bool:
    """Return whether a device multiplies in bfloat16 itself: NVIDIA GPUs from Ampere on."""
    import torch

    if torch.device(device).type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def peak_memory() -> int | None:
    """Return the most memory used so far in bytes: the GPU's where there is one in use."""
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
    """What a manifest records of where a run was made."""

    python: str
    platform: str
    cpus: int | None
    packages: dict[str, str]
    plugins: dict[str, str]
    git: str | None


def environment(plugins: Mapping[str, str]) -> Environment:
    """Return versions of packages and plugins, git state and hardware.

    Args:
        plugins: distribution → version of each plugin that is loaded.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "plugins": dict(plugins),
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state() -> str | None:
    """Return the toolkit's commit, `+dirty` where its files differ; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+dirty" if changes else commit
