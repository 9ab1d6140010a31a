"""Validation of a plugin's denoiser: its attributes, and the shapes and dtypes of its tensors.

Values are not validated here, because that would make the host wait for the GPU: errors that are
not finite are detected when they are read on the host.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from inspect import getattr_static
from typing import Any

from PIL.Image import Image

from bench.contracts.backbone import Denoiser
from bench.contracts.levels import Levels
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import offers, with_defaults
from bench.engine import trees
from bench.engine.trees import Tree
from bench.errors import PluginError, UserError
from bench.machine.libraries import Tensor, torch


class CheckedDenoiser:
    """Wrapper that validates a plugin's denoiser. It raises PluginError if the denoiser is faulty.

    The plugin's class need not be a subclass of `Denoiser`; messages call it `who`. `pinned_kernel`
    is the attention kernel that `accelerate` set; None if torch chooses it.
    """

    def __init__(self, backbone: Any, who: str) -> None:
        self.backbone, self.who = backbone, who
        self.key: object = None  # `backbone_key` of the run that made it
        self._model: Denoiser = with_defaults(backbone, Denoiser)
        self.pinned_kernel: str | None = None  # a key of `KERNELS`
        with self.guard("reading its latent_shape and resolution"):
            shape = tuple(int(side) for side in backbone.latent_shape)
            self.resolution = int(backbone.resolution)
        if len(shape) != 3 or min(shape) < 1:
            raise self._refuse(f"its latent_shape is {one_line(shape)}; expected (C, H, W)")
        self.latent_shape = shape
        with self.guard("reading its device"):
            device: Any = backbone.device
        if not isinstance(device, torch.device):
            raise self._refuse(f"its device is {one_line(device)}; expected a torch.device")
        self.device = device
        with self.guard("reading its levels"):
            levels: Any = backbone.levels
        if not isinstance(levels, Levels):
            raise self._refuse(f"its levels are {_described(levels)}; expected Levels")
        self.levels = levels

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

    def encode_images(self, images: Sequence[Image]) -> Tensor:
        """Return latents, floating [n, C, H, W]; torch.OutOfMemoryError passes."""
        with self.guard("encode_images()", torch.OutOfMemoryError):
            latents = self._model.encode_images(images)
        return self._floating("encode_images()", latents, (len(images), *self.latent_shape))

    def posterior(self, images: Sequence[Image]) -> Tensor:
        """Return the latents' mean and standard deviation, floating [n, 2, C, H, W]."""
        with self.guard("posterior()", torch.OutOfMemoryError):
            pair: Any = self._model.posterior(images)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise self._refuse(f"posterior() returned {_described(pair)}; expected a pair")
        shape = (len(images), *self.latent_shape)
        return torch.stack([self._floating("posterior()", part, shape) for part in pair], dim=1)

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning, one row per text in every leaf."""
        return self._rows("encode_prompts()", len(texts), self._model.encode_prompts, texts)

    @property
    def prompts_at_once(self) -> int:
        """Number of prompts to encode at a time."""
        with self.guard("reading its prompts_at_once"):
            return max(1, int(self._model.prompts_at_once))

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

    def save_memory(self) -> bool:
        """Have the backbone keep less for a backward pass; False where it cannot."""
        with self.guard("save_memory()"):
            return self._model.save_memory() is not False

    def guard(self, doing: str, *passing: type[BaseException]) -> AbstractContextManager[None]:
        """Return the guard around a call into the plugin's code."""
        return guard(self.who, doing, (UserError, *passing))

    def _rows(self, doing: str, count: int, method: Callable[..., Tree], *arguments: Any) -> Tree:
        """Return the tree that a method of the plugin makes, with `count` rows in every leaf."""
        with self.guard(doing, torch.OutOfMemoryError):
            tree = method(*arguments)
        try:
            leaves = trees.leaves(tree)
        except trees.TreeError as error:
            raise self._refuse(f"{doing}: {error}") from None
        for path, leaf in leaves.items():
            wrong = leaf.is_complex() or leaf.device.type != self.device.type
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
