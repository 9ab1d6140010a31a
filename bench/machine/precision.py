"""Precisions that a network computes in: which devices have them, and torch's switches for them.

The switches are those of NVIDIA GPUs. torch has two interfaces to TF32: `allow_tf32`, and since 2.9
`fp32_precision`. A value of one that the other cannot express raises RuntimeError where it is read.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import attrgetter
from threading import RLock
from typing import Any, Final, Literal

from bench.machine.environment import pick_device
from bench.machine.libraries import torch

Half = Literal["bfloat16", "float16"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "tf32", "bfloat16", "float16")
# Compute capability from which the tensor cores of NVIDIA's GPUs have a precision (CUDA C++
# Programming Guide, "Compute Capabilities"): Volta has float16, Ampere the others too.
CAPABILITIES: Final = {"float16": (7, 0), "bfloat16": (8, 0), "tf32": (8, 0)}
ASSUMED_CAPABILITY = (8, 0)  # of a GPU that is not on this machine: an A100's
_turn = RLock()
# torch's switches; all but the first are attributes below `torch.backends`.
_MATMUL = "float32_matmul_precision"
_OPERATORS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")
_REDUCTIONS = (
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_accumulation",
)


def dtype_of(precision: Precision) -> str:
    """Return the dtype of a network that computes in a precision."""
    return "float32" if precision == "tf32" else precision


def has_precision(device: str | None, precision: Precision) -> bool:
    """Return whether a device, by default the best one, is quick in a precision.

    Only GPUs have others than float32. One that is not on this machine is assumed to be an A100.
    """
    if precision == "float32":
        return True
    if not (device or pick_device(None)).startswith("cuda"):
        return False
    if torch.version.hip:  # AMD's numbers are others, and its TF32 is not what torch switches
        return precision != "tf32"
    capability = ASSUMED_CAPABILITY
    if not is_assumed(device):
        capability = torch.cuda.get_device_capability(torch.device(device or "cuda"))
    return capability >= CAPABILITIES[precision]


def tf32_needs(device: object) -> str:
    """Return what TF32 needs, for the message that a device lacks it."""
    return f"needs an NVIDIA GPU of compute capability 8.0 or later; the device here is {device}."


def is_assumed(device: str | None) -> bool:
    """Return whether a GPU is asked for that is not on this machine."""
    gpu = torch.device(device or "cpu")
    return gpu.type == "cuda" and (gpu.index or 0) >= torch.cuda.device_count()


def assumed_capability_notes(precision: Precision, device: str | None) -> list[str]:
    """Return the note that a precision was chosen for a GPU that is not here, if it was."""
    if precision == "float32" or not is_assumed(device):
        return []
    number = ".".join(map(str, ASSUMED_CAPABILITY))
    return [f"This machine has no such GPU: compute capability {number} is assumed ({precision})."]


@contextmanager
def computing(tf32: bool) -> Iterator[None]:
    """Round float32 products of a GPU to TF32, or not at all, while the block runs.

    torch's own default is TF32 in convolutions alone. Sums of products in half precision are kept
    in float32, which torch's default may round. What the process had is restored. Threads take
    turns, because the switches are those of the process.
    """
    mode = "tf32" if tf32 else "ieee"
    values: dict[str, Any] = {  # the newer interface comes last: the older one changes it too
        _MATMUL: "high" if tf32 else "highest",
        "cudnn.allow_tf32": tf32,
        **{f"{operator}.fp32_precision": mode for operator in _OPERATORS},
        **dict.fromkeys(_REDUCTIONS, False),
    }
    with _turn:
        before = _read(values)
        try:
            _set(values)
            yield
        finally:
            _set(before)


def _read(names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the switches that torch has, and whose value it can express."""
    values: dict[str, Any] = {}
    for name in names:
        with suppress(AttributeError, RuntimeError):
            values[name] = _value(name)
    return values


def _value(name: str) -> Any:
    if name == _MATMUL:
        return torch.get_float32_matmul_precision()
    value = attrgetter(name)(torch.backends)
    try:
        return value, attrgetter(f"{name}_split_k")(torch.backends)  # a switch of two parts
    except AttributeError:
        return value


def _set(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        owner, _, attribute = name.rpartition(".")
        if name == _MATMUL:
            torch.set_float32_matmul_precision(value)
            continue
        with suppress(AttributeError):  # a switch of another version of torch
            setattr(attrgetter(owner)(torch.backends), attribute, value)
