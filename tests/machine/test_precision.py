"""Precisions of devices, and torch's switches for them."""

from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from time import sleep
from typing import Any

import pytest
import torch

from bench.machine.precision import Precision, computing, has_precision

T4, V100, A100 = (7, 5), (7, 0), (8, 0)


@pytest.mark.parametrize(
    ("capability", "quick"),
    [
        ((6, 1), {"float32"}),
        (V100, {"float32", "float16"}),
        (T4, {"float32", "float16"}),
        (A100, {"float32", "tf32", "bfloat16", "float16"}),
        ((9, 0), {"float32", "tf32", "bfloat16", "float16"}),
    ],
)
def test_a_gpu_has_what_its_tensor_cores_have(
    capability: tuple[int, int], quick: set[Precision], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    names: list[Precision] = ["float32", "tf32", "bfloat16", "float16"]
    assert {name for name in names if has_precision("cuda:0", name)} == quick
    assert all(has_precision("cuda:1", name) for name in names)  # not here: an A100


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu"])
def test_other_devices_have_float32_alone(device: str) -> None:
    names: list[Precision] = ["tf32", "bfloat16", "float16"]
    assert has_precision(device, "float32")
    assert not any(has_precision(device, name) for name in names)


OLD = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32")
NEW = ("cuda.matmul.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision")
REDUCTIONS = (
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cuda.matmul.allow_fp16_reduced_precision_reduction_split_k",
    "cuda.matmul.allow_fp16_accumulation",
)
OTHERS = ("fp32_precision", "mkldnn.fp32_precision")


def read(names: tuple[str, ...]) -> dict[str, Any]:
    """Return what torch says of its switches; the name of an error where it refuses."""
    values = {}
    for name in names:
        try:
            values[name] = attrgetter(name)(torch.backends)
        except (RuntimeError, AttributeError) as error:
            values[name] = type(error).__name__
    return values


def nothing() -> None: ...


def matmul_in_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True


def convolutions_without_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = False


def medium() -> None:
    torch.set_float32_matmul_precision("medium")


def by_the_new_interface() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    conv: Any = attrgetter("cudnn.conv")(torch.backends)
    conv.fp32_precision = "ieee"


def everything_at_once() -> None:
    every: Any = torch.backends
    every.fp32_precision = "tf32"


def quick_sums() -> None:
    torch._C._set_cublas_allow_fp16_reduced_precision_reduction(False, False)
    torch.backends.cuda.matmul.allow_fp16_accumulation = True


HAD = [nothing, matmul_in_tf32, convolutions_without_tf32, medium, by_the_new_interface]
HAD += [everything_at_once, quick_sums]


@pytest.fixture
def switches() -> Any:
    """Restore torch's switches after a test that leaves them altered."""
    had = read((*NEW, *OTHERS)), torch._C._get_cublas_allow_fp16_reduced_precision_reduction()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    torch._C._set_cublas_allow_fp16_reduced_precision_reduction(*had[1])
    torch.backends.cuda.matmul.allow_fp16_accumulation = False
    for name, value in had[0].items():
        owner, _, attribute = name.rpartition(".")
        place = attrgetter(owner)(torch.backends) if owner else torch.backends
        setattr(place, attribute, value)


since_2_9 = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has one interface"
)


@since_2_9
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("had", HAD, ids=lambda had: had.__name__)
def test_both_interfaces_say_the_same_and_are_restored(
    had: Any, tf32: bool, switches: None
) -> None:
    had()
    names = (*NEW, *REDUCTIONS, *OTHERS)
    before, said = read(names), read(OLD)
    with computing(tf32):
        assert set(read(OLD).values()) == {tf32}
        assert set(read(NEW).values()) == {"tf32" if tf32 else "ieee"}
        sums = read(REDUCTIONS)
        assert not sums[REDUCTIONS[0]] and not sums[REDUCTIONS[1]] and not sums[REDUCTIONS[3]]
        with computing(not tf32):
            assert set(read(OLD).values()) == {not tf32}
        assert set(read(OLD).values()) == {tf32}
    assert read(names) == before
    after = read(OLD)
    assert all(after[name] == value for name, value in said.items() if value != "RuntimeError")


@since_2_9
def test_threads_that_need_other_switches_take_turns(switches: None) -> None:
    before = read((*OLD, *NEW))

    def seen(tf32: bool) -> set[Any]:
        with computing(tf32):
            first = set(read(OLD).values())
            sleep(0.01)  # lets another thread begin
            return first | set(read(OLD).values())

    wanted = [n % 2 == 0 for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(seen, wanted)) == [{tf32} for tf32 in wanted]
    assert read((*OLD, *NEW)) == before


@since_2_9
def test_an_error_restores_too(switches: None) -> None:
    before = read((*OLD, *NEW))
    with pytest.raises(KeyError), computing(True):
        raise KeyError
    assert read((*OLD, *NEW)) == before
