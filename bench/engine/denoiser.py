"""Validation of a plugin's denoiser, and options that make its network faster.

The attributes of a denoiser, and shapes and dtypes of its tensors are validated. Values are not,
because the host would have to wait for the GPU: errors that are not finite are detected when they
are read on the host.

The options are memory layout, attention kernel and compilation. They affect results only by
rounding; design/engine.md has the figures.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property, partial, wraps
from inspect import getattr_static
from typing import Any, cast

import numpy as np
from PIL.Image import Image

from bench.contracts.backbone import Denoiser
from bench.contracts.levels import Levels
from bench.contracts.strategy import Ints
from bench.contracts.typed import PositiveInt
from bench.discovery.guard import checked_answer, guard
from bench.discovery.targets import offers, with_defaults
from bench.engine import trees
from bench.engine.trees import Tree
from bench.errors import PluginError, UserError
from bench.machine.libraries import Tensor, torch
from bench.machine.libraries.private_diffusers import repeated_blocks


class CheckedDenoiser:
    """Wrapper that validates a plugin's denoiser. It raises PluginError if the denoiser is faulty.

    The plugin's class need not be a subclass of `Denoiser`; messages call it `who`. `pinned_kernel`
    is the attention kernel that `accelerate` set; None if torch chooses it. `switches` returns
    the context of every call, which sets the run's precision.
    """

    def __init__(self, backbone: Any, who: str) -> None:
        self.backbone, self.who = backbone, who
        self.key: object = None  # `backbone_key` of the run that made it
        self._model: Denoiser = with_defaults(backbone, Denoiser)
        self.pinned_kernel: str | None = None  # a key of `KERNELS`
        self.switches: Callable[[], AbstractContextManager[None]] = nullcontext
        self.encoding: Callable[[], AbstractContextManager[None]] = nullcontext  # of images
        self.advice = ""  # what avoids errors that are not finite, as the end of a sentence
        self.offloads = False  # whether images and cells are computed at the cost of a transfer
        self.uncompiled: Callable[..., Any] | None = None  # its network's forward before compiling
        model, shape = self._model, tuple[PositiveInt, PositiveInt, PositiveInt]
        self.latent_shape = checked_answer(
            who, "latent_shape", shape, lambda: tuple(map(int, model.latent_shape))
        )
        self.resolution = checked_answer(who, "resolution", PositiveInt, lambda: model.resolution)
        self.device = checked_answer(who, "device", torch.device, lambda: model.device)
        self.levels = checked_answer(who, "levels", Levels, lambda: model.levels)
        self.on_host = frozenset(
            checked_answer(who, "on_host", tuple[str, ...], lambda: tuple(model.on_host))
        )

    @property
    def network(self) -> "torch.nn.Module | None":
        """The module that `denoise` calls; None where the backbone declares none."""
        backbone = self.backbone
        with self.guard("reading its network"):
            if getattr_static(backbone, "network", None) is not None:
                network: Any = backbone.network
            elif isinstance(backbone, torch.nn.Module):  # its submodules are no attributes
                network = dict(backbone.named_children()).get("network")
            else:
                return None
        if network is not None and not isinstance(network, torch.nn.Module):
            raise self._refuse(f"its network is a {type(network).__name__}, not a torch module")
        return network

    def preprocess(self, images: Sequence[Image]) -> Sequence[Image] | Tensor:
        """Return the pixels of images, pinned for a GPU; without a `preprocess`, the images."""
        if not offers(self.backbone, Denoiser.preprocess):
            return images
        # Without `switches`, which act on the whole process: another thread calls this.
        with guard(self.who, "preprocess()", (UserError,)):
            pixels: Any = self._model.preprocess(images)
        if not isinstance(pixels, torch.Tensor) or len(pixels) != len(images):
            raise self._refuse(
                f"preprocess() returned {_described(pixels)} of {len(images)} images"
            )
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def encode_images(self, images: Sequence[Image] | Tensor) -> Tensor:
        """Return latents, floating [n, C, H, W]; torch.OutOfMemoryError passes."""
        with self.guard("encode_images()", torch.OutOfMemoryError), self.encoding():
            latents = self._model.encode_images(cast(Any, images))
        return self._floating("encode_images()", latents, (len(images), *self.latent_shape))

    def posterior(self, images: Sequence[Image] | Tensor) -> Tensor:
        """Return the latents' mean and standard deviation, floating [n, 2, C, H, W]."""
        with self.guard("posterior()", torch.OutOfMemoryError), self.encoding():
            pair: Any = self._model.posterior(cast(Any, images))
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise self._refuse(f"posterior() returned {_described(pair)}; expected a pair")
        shape = (len(images), *self.latent_shape)
        return torch.stack([self._floating("posterior()", part, shape) for part in pair], dim=1)

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning, one row per text in every leaf."""
        return self._rows("encode_prompts()", len(texts), lambda: self._model.encode_prompts(texts))

    @property
    def prompts_at_once(self) -> int:
        """Number of prompts to encode at a time."""
        with self.guard("reading its prompts_at_once"):
            return max(1, int(self._model.prompts_at_once))

    @cached_property
    def one_level(self) -> bool:
        """Whether the cells of a call must have the same level; reading it may load the network."""
        with self.guard("reading its one_level", torch.OutOfMemoryError):
            return self._model.one_level is True

    def batch_keys(self, conditioning: Tree) -> Ints:
        """Return the number of each prompt's key, int64 [P]; all 0 if the backbone has no keys."""
        prompts = trees.count(conditioning)
        if not offers(self.backbone, Denoiser.batch_keys):
            return np.zeros(prompts, np.int64)
        with self.guard("batch_keys()"):
            keys = list(self._model.batch_keys(conditioning))
            numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        if len(keys) != prompts:
            raise self._refuse(f"batch_keys() returned {len(keys)} keys for {prompts} prompts")
        return np.array([numbers[key] for key in keys], np.int64)

    def prepare_compiling(self, conditioning: Tree) -> bool:
        """Prepare the network for compilation; return whether all calls have the same shapes."""
        with self.guard("prepare_compiling()", torch.OutOfMemoryError):
            return self._model.prepare_compiling(conditioning) is not False

    def encode_null(self) -> Tree:
        """Return the conditioning of no prompt, one row."""
        return self._rows("encode_null()", 1, self._model.encode_null)

    def mixes_rest(self) -> trees.MixRest | None:
        """Return the checked `mix_rest`, one row per call; None where the backbone has none."""
        if not offers(self.backbone, Denoiser.mix_rest):
            return None
        return partial(self._rows, "mix_rest()", 1, self._model.mix_rest)

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Tree) -> Tensor:
        """Return the prediction, floating [B, C, H, W]; torch.OutOfMemoryError passes."""
        with self.guard("denoise()", torch.OutOfMemoryError):
            prediction = self._model.denoise(x_t, t, conditioning)
        return self._floating("denoise()", prediction, (len(x_t), *self.latent_shape))

    def offload(self) -> None:
        """Have the backbone keep unused parts on the CPU. Raises UserError if it cannot."""
        if self.device.type != "cuda":
            raise UserError(f"--offload is for GPUs; the device here is {self.device.type}.")
        with self.guard("offload()"):
            self.offloads = self._model.offload() is not False
        if not self.offloads:
            raise UserError(
                f"--offload cannot be used with {self.who}: its parts are not loaded one by one. A"
                " pipeline can be handed over in Python, after pipe.enable_model_cpu_offload()."
            )

    def save_memory(self) -> bool:
        """Have the backbone keep less for a backward pass; return False if it cannot."""
        with self.guard("save_memory()"):
            return self._model.save_memory() is not False

    @contextmanager
    def guard(self, doing: str, *passing: type[BaseException]) -> Iterator[None]:
        """Guard a call into the plugin's code, and set the switches of the precision."""
        with self.switches(), guard(self.who, doing, (UserError, *passing)):
            yield

    def _rows(self, doing: str, count: int, method: Callable[..., Tree], *arguments: Any) -> Tree:
        """Return the tree that a method of the plugin makes, with `count` rows in every leaf."""
        with self.guard(doing, torch.OutOfMemoryError):
            tree = method(*arguments)
        try:
            leaves = trees.leaves(tree)
        except trees.TreeError as error:
            raise self._refuse(f"{doing}: {error}") from None
        for path, leaf in leaves.items():
            is_away = leaf.device.type != self.device.type
            wrong = leaf.is_complex() or (is_away and path not in self.on_host)
            if wrong or leaf.ndim == 0 or len(leaf) != count:
                at = f" for {path!r}" if path else ""
                raise self._refuse(
                    f"{doing} returned {_described(leaf)}{at}; {count} rows of real numbers on"
                    f" {self.device.type} are wanted"
                )
        return tree

    def _floating(self, doing: str, returned: Any, shape: tuple[int, ...]) -> Tensor:
        if (
            isinstance(returned, torch.Tensor)
            and returned.shape == shape
            and returned.dtype.is_floating_point
            and returned.device.type == self.device.type
        ):
            return returned
        raise self._refuse(
            f"{doing} returned {_described(returned)}; a floating-point tensor of shape"
            f" {list(shape)} on {self.device.type} is wanted"
        )

    def _refuse(self, problem: str) -> PluginError:
        return PluginError(self.who, problem)


def _described(value: object) -> str:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} tensor of shape {list(value.shape)} on {value.device.type}"
    return f"a {type(value).__name__}"


KERNELS = {  # values of `--attention` → names in torch
    "math": "MATH",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
}


def accelerate(backbone: CheckedDenoiser, layout: str, attention: str, compiled: bool) -> None:
    """Lay out the backbone's network and pin its attention kernel, in place.

    Diffusers' own `set_attention_backend` does nothing to the attention of Stable Diffusion's
    UNets; their processors call torch's `scaled_dot_product_attention`, whose kernel torch chooses.
    `attention` is `auto` or a key of `KERNELS`. Raises UserError if the backbone has no `network`
    attribute that could be changed or `compiled`, or the device has no such kernel.
    """
    network = backbone.network
    if network is None:
        if layout != "auto" or attention != "auto" or compiled:
            raise UserError(
                f"--compile, --layout and --attention cannot be used with {backbone.who}: it has"
                " no `network` attribute."
            )
        return
    # Tensor cores are faster with channels-last; a CPU gains nothing (design/engine.md).
    if layout == "channels-last" or (layout == "auto" and backbone.device.type == "cuda"):
        lay_out(network)
    if attention != "auto":
        _check_kernel(attention, network, backbone.device)
        network.forward = _pinned(attention)(network.forward)  # entered anew by each call
        backbone.pinned_kernel = attention


def lay_out(module: "torch.nn.Module") -> None:
    """Lay the weights of 2-D convolutions out channels-last, in place; other weights have none."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            cast(Any, part).to(memory_format=torch.channels_last)  # some stubs of torch lack it


REPEATED = 0.9  # with a larger share of parameters in repeated blocks, only these are compiled


def compile_network(backbone: CheckedDenoiser, conditioning: Tree) -> None:
    """Compile the backbone's network for a run's prompts; the first batch takes a minute or more.

    Lengths of prompts that vary are dynamic dimensions. If the network is nearly all repeated
    blocks, these are compiled once instead of the whole, which takes a fraction of the time.
    """
    network = backbone.network
    assert network is not None, "`accelerate` checked it"
    # For None, torch makes a dimension dynamic once it has changed.
    dynamic = False if backbone.prepare_compiling(conditioning) else None
    if repeats_blocks(network):
        cast(Any, network).compile_repeated_blocks(dynamic=dynamic)
        return
    # CUDA graphs spare the host the launches of small kernels. The next replay of such a graph
    # overwrites its results, hence the copies.
    mode = "reduce-overhead" if backbone.device.type == "cuda" else None
    backbone.uncompiled = backbone.uncompiled or network.forward
    network.forward = cloned(torch.compile(backbone.uncompiled, dynamic=dynamic, mode=mode))


def repeats_blocks(network: "torch.nn.Module") -> bool:
    """Return whether nearly all parameters are in blocks that diffusers declares as repeated.

    In a UNet only attention is repeated: convolutions and CUDA graphs would be left out.
    """
    names = repeated_blocks(network)
    blocks = [part for part in network.modules() if type(part).__name__ in names]
    repeated = {id(p): p.numel() for block in blocks for p in block.parameters()}
    return sum(repeated.values()) > REPEATED * sum(p.numel() for p in network.parameters())


def cloned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose results are copies."""
    from bench.machine.libraries.private_torch import tree_map_only

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return tree_map_only(torch.Tensor, torch.clone, function(*arguments, **keywords))

    return call


@contextmanager
def with_gradients(backbone: CheckedDenoiser) -> Iterator[None]:
    """Enable gradients of the network; the backward pass must be within this context, too.

    A compiled network runs uncompiled, since its backward pass is not compiled. A pinned attention
    kernel stays pinned where activations are recomputed: another kernel keeps other tensors.
    """
    with ExitStack() as stack:
        stack.enter_context(backbone.switches())
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
