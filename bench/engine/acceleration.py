"""Options that make the network faster: memory layout, attention kernel, TF32 and compilation.

They affect results only by rounding; design/engine.md has the figures.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from bench.engine.denoiser import CheckedDenoiser
from bench.errors import UserError
from bench.machine.libraries import torch

KERNELS = {  # values of `--attention` → names in torch
    "math": "MATH",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
}


def set_precision(device: "torch.device", tf32: bool) -> None:
    """Set for the whole process whether a GPU may round float32 products to TF32.

    torch's own default is yes for convolutions and no for matrix products. `UserError` where
    there is no TF32.
    """
    if tf32 and device.type != "cuda":
        raise UserError(f"--tf32 is a mode of NVIDIA GPUs; the device here is {device.type}.")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def accelerate(backbone: CheckedDenoiser, layout: str, attention: str, compiled: bool) -> None:
    """Lay out the backbone's network and pin its attention kernel, in place.

    Diffusers' own `set_attention_backend` does nothing to the attention of Stable Diffusion's
    UNets; their processors call torch's `scaled_dot_product_attention`, whose kernel torch chooses.
    `attention` is `auto` or a key of `KERNELS`. A UserError where the backbone has no `network`
    attribute that could be changed or `compiled`, or no such kernel on this device.
    """
    network = backbone.network
    if network is None:
        if layout != "auto" or attention != "auto" or compiled:
            raise UserError(
                f"--compile, --layout and --attention cannot be used with {backbone.who}: it has"
                " no `network` attribute."
            )
        return
    # It gains nothing on a CPU (design/engine.md), but tensor cores are faster with it.
    if layout == "channels-last" or (layout == "auto" and backbone.device.type == "cuda"):
        cast(Any, network).to(memory_format=torch.channels_last)  # some stubs of torch lack it
    if attention != "auto":
        _check_kernel(attention, network, backbone.device)
        network.forward = _pinned(attention)(network.forward)  # entered anew by each call
        backbone.pinned_kernel = attention


def compile_network(backbone: CheckedDenoiser) -> None:
    """Compile the backbone's network for static shapes; the first batch takes a minute or more."""
    on_gpu = backbone.device.type == "cuda"
    # CUDA graphs take the launches of small kernels off the host.
    network = backbone.network
    assert network is not None, "`accelerate` checked it"
    network.compile(dynamic=False, mode="reduce-overhead" if on_gpu else None)


@contextmanager
def with_gradients(backbone: CheckedDenoiser) -> Iterator[None]:
    """Enable gradients of the network; the backward pass must be within this context, too.

    A compiled network runs uncompiled, since its backward pass is not compiled. A pinned attention
    kernel stays pinned where activations are recomputed: another kernel keeps other tensors.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if "torch._dynamo" in sys.modules:  # importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if backbone.pinned_kernel is not None:
            stack.enter_context(_pinned(backbone.pinned_kernel))
        yield


def _pinned(attention: str) -> Any:
    """Return the context in which torch uses one attention kernel."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(getattr(SDPBackend, KERNELS[attention]))


def _check_kernel(name: str, network: "torch.nn.Module", device: "torch.device") -> None:
    """Try the kernel on heads of a usual size."""
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    q = torch.zeros(1, 1, 16, 64, dtype=dtype, device=device)
    try:
        with _pinned(name):
            torch.nn.functional.scaled_dot_product_attention(q, q, q)
    except RuntimeError as error:
        raise UserError(
            f"--attention {name} cannot be used on {device.type} in {dtype}:"
            f" {str(error).splitlines()[0]}"
        ) from None
