"""Devices, and the record of the machine in a manifest."""

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

from bench.errors import UserError
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


def likely_device(requested: str | None) -> str:
    """Return the type of device that a run would probably use, without importing torch."""
    if requested:
        return requested.partition(":")[0]
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


def devices() -> list[str]:
    """Return descriptions of the devices that a run can use, best first."""
    names = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            names.append(f"cuda:{number}: {card.name}, {card.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        names.append("mps")
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
    """Return a fact about a GPU, by default the first (OSError or SubprocessError)."""
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


def peak_memory() -> int | None:
    """Return the peak memory in bytes of the GPU, if used, or of this process; None if unknown."""
    if "torch" in sys.modules and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


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
