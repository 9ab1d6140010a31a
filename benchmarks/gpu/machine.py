"""The device that is measured, and where a part finds what it needs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch

from bench.cli.doctor import matmul_peak
from bench.machine.environment import peak_memory
from benchmarks.gpu.report import Row


@dataclass(frozen=True)
class Machine:
    """Where parts run.

    Attributes:
        device: what is measured.
        small: whether shapes are small: to see that all of it runs.
        folder: for pipelines; kept from part to part.
    """

    device: torch.device
    small: bool
    folder: Path

    @property
    def rounds(self) -> int:
        """Of a timing."""
        return 1 if self.small else 5

    def forget_memory(self) -> None:
        """Free what is not in use, and begin to look for the peak again."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> float:
        """Return the peak in GiB: of a GPU since it was forgotten, else of the process."""
        return (peak_memory() or 0) / 2**30


def itself(machine: Machine) -> Iterator[Row]:
    """Say what the machine is, and what its best matrix product reaches."""
    device = machine.device
    row: Row = {"python": platform.python_version(), "torch": torch.__version__}
    row |= {"diffusers": diffusers.__version__, "device": str(device)}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        row |= {"gpu": found.name, "gib": found.total_memory / 2**30}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        peak = matmul_peak(device, dtype, 0.002 if machine.small else 0.1)
        row[f"tflop_per_second_{name}"] = peak / 1e12
    yield row
