"""Networks with random weights, of published shapes or small ones, and how fast they are."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from helpers import families
from helpers.pipelines import UNETS
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.cli.doctor import matmul_peak
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.report import Row
from benchmarks.published import empty_network
from benchmarks.timing import synchronize

SHAPES = {"sd21": "Stable Diffusion 2.1-base", "sdxl": "SDXL", "sd3": "Stable Diffusion 3"}
TOKENS = {"sd21": 77, "sdxl": 77, "sd3": 77 + 256}
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LONG = 8.0  # seconds of a batch from which on a larger one is not tried
KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
Call = Callable[[], torch.Tensor]


def on_meta(kind: str, small: bool) -> nn.Module:
    """Return a network without memory for its tensors."""
    if not small:
        return empty_network(kind)[0]
    made, config = (UNet2DConditionModel, UNETS[kind]) if kind in UNETS else _small(kind)
    with torch.device("meta"):
        return made.from_config(config)  # type: ignore[no-any-return]  # diffusers is untyped


@cache
def _small(kind: str) -> tuple[Any, Any]:
    """Return class and config of a family's small network."""
    with tempfile.TemporaryDirectory() as folder:
        made = families.save(kind, Path(folder, kind))
    network = made.unet if kind == "sdxl" else made.transformer
    return type(network), network.config


def filled(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Give a network on the meta device random weights on a device; activations stay finite."""
    nn.Module.to(network, dtype)  # diffusers' own warns of parts that stay in float32
    network = network.to_empty(device=device).eval().requires_grad_(False)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                fan = tensor[0].numel() if tensor.ndim > 1 else 4
                tensor.normal_(0, fan**-0.5)
    return network


def call(kind: str, network: nn.Module, batch: int) -> Call:
    """Return a call of the network on a batch of random cells, on its device and in its dtype."""
    config: Any = network.config
    like = next(network.parameters())

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, device=like.device, dtype=like.dtype)

    side, width = config.sample_size, TOKENS[kind]
    x_t = random(config.in_channels, side, side)
    t = torch.full((batch,), 500.0, device=like.device)
    more: dict[str, Any] = {}
    if kind == "sd3":
        texts = random(width, config.joint_attention_dim)
        more = {"pooled_projections": random(config.pooled_projection_dim)}
    else:
        texts = random(width, config.cross_attention_dim)
    if kind == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        more = {"added_cond_kwargs": {"text_embeds": random(pooled), "time_ids": random(6)}}

    @torch.inference_mode()
    def work() -> torch.Tensor:
        answer: torch.Tensor = network(
            x_t, timestep=t, encoder_hidden_states=texts, return_dict=False, **more
        )[0]
        return answer

    return work


def operations(kind: str, network: nn.Module) -> float:
    """Return the floating-point operations of one evaluation, counted on the meta device."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(kind, network, 1)()
    return float(counter.get_total_flops())


def seconds_of(work: Call, device: torch.device, rounds: int) -> float:
    """Return the seconds of a call: the median of a few, after one that is not counted."""
    taken: list[float] = []
    for _ in range(rounds + 1):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - started)
        if taken[-1] > LONG / 2 and len(taken) > 1:
            break
    return median(taken[1:])


def rates(machine: Machine, kind: str) -> Iterator[Row]:
    """Measure evaluations per second by dtype and batch size, as the network is."""
    device = machine.device
    settings = [("bfloat16", torch.bfloat16, False), ("float32", torch.float32, False)]
    if device.type == "cuda":
        settings += [("TF32", torch.float32, True), ("float16", torch.float16, False)]
    for name, dtype, tf32 in settings:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        peak = matmul_peak(device, dtype, 0.002 if machine.small else 0.1)
        empty = on_meta(kind, machine.small)
        flops = operations(kind, empty)
        network = filled(empty, device, dtype)
        for batch in (1, 4) if machine.small else SIZES:
            row: Row = {"shape": SHAPES[kind], "dtype": name, "batch": batch}
            machine.forget_memory()
            try:
                seconds = seconds_of(call(kind, network, batch), device, machine.rounds)
            except torch.OutOfMemoryError:
                yield {**row, "said": "out of memory"}
                break
            speed = batch / seconds
            yield {
                **row,
                "evaluations_per_second": speed,
                "tflop_per_second": speed * flops / 1e12,
                "percent_of_the_best_product": 100 * speed * flops / peak,
                "gib": machine.memory(),
            }
            if seconds > LONG:
                break
        del network
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def switches(machine: Machine, kind: str) -> Iterator[Row]:
    """Measure layout, attention kernels, CUDA graphs and compilation in bfloat16, one by one."""
    for batch in (2,) if machine.small else (4, 32):
        yield from _switches_at(kind, machine, batch)


def _switches_at(kind: str, machine: Machine, batch: int) -> Iterator[Row]:
    device, on_gpu = machine.device, machine.device.type == "cuda"
    network = filled(on_meta(kind, machine.small), device, torch.bfloat16)
    work = call(kind, network, batch)
    base = seconds_of(work, device, machine.rounds)

    def row(name: str, make: Callable[[], Call]) -> Row:
        shown: Row = {"shape": SHAPES[kind], "batch": batch, "switch": name}
        started = time.perf_counter()
        try:
            seconds = seconds_of(make(), device, machine.rounds)
        except (RuntimeError, AssertionError) as error:  # no such kernel, or out of memory
            return {**shown, "said": f"cannot: {str(error).splitlines()[0][:120]}"}
        return {
            **shown,
            "evaluations_per_second": batch / seconds,
            "times_as_fast": base / seconds,
            "seconds_in_all": time.perf_counter() - started,
        }

    def plain() -> Call:
        return work

    yield row("none", plain)
    for name, kernel in KERNELS.items():
        yield row(f"attention {name}", partial(_pinned, kernel, work))
    if on_gpu:
        yield row("CUDA graph", partial(_graphed, work))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, unused-ignore]  # torch's stub leaves it out
    yield row("channels-last", plain)
    if machine.small:  # inductor takes a minute, whatever the network
        network.compile(dynamic=False, backend="eager")
        yield row("channels-last, traced", plain)
        return
    network.compile(dynamic=False)
    yield row("channels-last, compiled", plain)
    if on_gpu:
        network.compile(dynamic=False, mode="reduce-overhead")
        yield row("channels-last, compiled, CUDA graphs", plain)


def _pinned(kernel: SDPBackend, work: Call) -> Call:
    def pinned() -> torch.Tensor:
        with sdpa_kernel(kernel):
            return work()

    return pinned


def _graphed(work: Call) -> Call:
    """Return work as one CUDA graph, captured from calls on fixed tensors."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = work()

    def replay() -> torch.Tensor:
        graph.replay()
        return answer

    return replay
