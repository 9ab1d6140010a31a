"""How far each part of an evaluation is from the device's limit, and whether the host is the limit.

The limit of a part is the longer of two times: its operations at the best matrix product measured,
and its bytes at the best copy measured. Operations and bytes are counted on the meta device, time
is the profiler's. What no kernel takes of the clock's time is the host's.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.cli.doctor import matmul_peak
from bench.engine.denoiser import lay_out
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.networks import SHAPES, call, filled, on_meta
from benchmarks.gpu.report import Row
from benchmarks.timing import synchronize

CONVOLUTIONS, LINEAR, ATTENTION = "convolutions", "linear layers", "attention"
REST = "normalisation and pointwise"
PARTS = {  # part → words in the names of its operators, the first that fits
    CONVOLUTIONS: ("conv",),
    ATTENTION: ("attention", "bmm", "softmax", "flash", "efficient"),
    LINEAR: ("addmm", "mm", "linear", "matmul"),
}
COPIED = 2**28  # bytes of a copy that measures the memory's speed
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def part_of(operator: str) -> str:
    """Return the part of an evaluation to which an operator belongs."""
    name = operator.rpartition("::")[2].lower()
    return next((part for part, words in PARTS.items() if any(w in name for w in words)), REST)


class _Bytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not typed
    """Counts the bytes that operators read and write, by part; views take none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        storages = {x.untyped_storage()._cdata for x in read}
        if any(x.untyped_storage()._cdata not in storages for x in made):
            self.of[part_of(str(func).removeprefix("aten.").split(".")[0])] += sum(
                x.nbytes for x in (*read, *made)
            )
        return result


def counted(kind: str, network: torch.nn.Module, batch: int) -> dict[str, tuple[float, float]]:
    """Return operations and bytes of each part of a batch, counted on the meta device."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(kind, network, batch)()
    operations: collections.Counter[str] = collections.Counter()
    for operator, count in counter.get_flop_counts()["Global"].items():
        operations[part_of(str(operator).removeprefix("aten."))] += count
    with _Bytes() as moved:
        call(kind, network, batch)()
    return {part: (float(operations[part]), float(moved.of[part])) for part in (*PARTS, REST)}


def copy_speed(device: torch.device, small: bool) -> float:
    """Return the bytes per second that a device's memory takes and gives in a copy."""
    source = torch.zeros(COPIED // (64 if small else 1), dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(5):
        synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = max(best, 2 * len(source) / (time.perf_counter() - started))
    return best


def roofline(machine: Machine, kind: str) -> Iterator[Row]:
    """Compare each part's time with its limit, for a full batch, by dtype."""
    device, on_gpu = machine.device, machine.device.type == "cuda"
    memory, batch = copy_speed(device, machine.small), 2 if machine.small else 32
    for name, dtype in DTYPES.items():
        peak = matmul_peak(device, dtype, 0.002 if machine.small else 0.1)
        empty = on_meta(kind, machine.small).to(dtype)
        limits = counted(kind, empty, batch)
        network = filled(empty, device, dtype)
        lay_out(network)
        work = call(kind, network, batch)
        work()
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        clock = time.perf_counter() - started
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with profile(activities=activities) as profiled:
            work()
            synchronize(device)
        taken: collections.Counter[str] = collections.Counter()
        for event in profiled.key_averages():
            own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            if event.key.startswith("aten::"):
                taken[part_of(event.key)] += own / 1e6
        row: Row = {"shape": SHAPES[kind], "dtype": name, "batch": batch}
        best = 0.0
        for part, (operations, moved) in limits.items():
            limit = max(operations / peak, moved / memory)
            best += limit
            yield {
                **row,
                "part": part,
                "limited_by": "operations" if operations / peak > moved / memory else "memory",
                "milliseconds_at_the_limit": 1e3 * limit,
                "milliseconds": 1e3 * taken[part],
                "percent_of_the_limit": 100 * limit / taken[part] if taken[part] else None,
            }
        yield {
            **row,
            "part": "all",
            "milliseconds_at_the_limit": 1e3 * best,
            "milliseconds": 1e3 * clock,
            "percent_of_the_limit": 100 * best / clock,
            "evaluations_per_second": batch / clock,
            "evaluations_per_second_at_the_limit": batch / best,
            "percent_waiting_for_the_host": max(0.0, 100 * (1 - taken.total() / clock)),
        }
        del network
