"""What a family's folder holds: configs of network and autoencoder, and modules without memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import Any, ClassVar

import diffusers
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.contracts.levels import Levels
from bench.engine.trees import Tree, leaves
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._autoencoders import KL, Autoencoder
from bench_plugins.backbones._checkpoint import ModelPart, build_empty, first_line
from bench_plugins.backbones._configs import is_whole, read_config, read_diffusion, read_scaling
from bench_plugins.backbones._texts import TextEncoder

Configs = Sequence[Mapping[str, Any]]  # of text encoders

PIPELINE_INDEX = "model_index.json"
LEAST_EMBEDDING = 4  # of a guidance scale; of fewer numbers, half are not finite
LARGEST_LATENT = 1024  # side of a latent; the largest known models have 128


@dataclass(frozen=True)
class Pipeline:
    """What the configs of network and autoencoder say, checked.

    Attributes:
        empty: the network without memory for its tensors.
        empty_vae: the autoencoder without memory for its tensors.
        latent_shape: (C, H, W).
        resolution: image side in pixels.
        scaling: latents are multiplied with it, after `shift` is subtracted.
        prompt_shape: (L, D) of a conditioning, where tokenizer and text encoder decide it.
        guidance: the scale that a UNet distilled with guidance is told; None: it is told none.
    """

    config: Mapping[str, Any]
    empty: Any
    vae_config: Mapping[str, Any]
    empty_vae: Any
    latent_shape: tuple[int, int, int]
    resolution: int
    scaling: float
    shift: float
    prompt_shape: tuple[int, int] | None = None
    guidance: float | None = None


class Family:
    """What a family of pipelines says of its folders, and how its network is called."""

    # What `model_index.json` may name.
    pipelines: ClassVar[tuple[str, ...]]
    network_part: ClassVar[ModelPart]
    network_classes: ClassVar[tuple[str, ...]]
    autoencoder: ClassVar[Autoencoder] = KL

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return its text encoders."""
        raise NotImplementedError

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Refuse text encoders, given by their configs, that the network does not take."""

    @classmethod
    def prompt_shape(cls, weights: Weights) -> tuple[int, int] | None:
        """Return (L, D) of a conditioning; None where the network's config alone decides it."""
        return None

    @classmethod
    def native_side(cls, config: Any) -> Any:
        """Return the side of the latents that the network was made for."""
        return config.sample_size

    @classmethod
    def step(cls, config: Any) -> int:
        """Return what the sides of a latent must be multiples of."""
        return int(config.patch_size)

    @classmethod
    def channels(cls, config: Any) -> int:
        """Return the channels of a latent."""
        return int(config.in_channels)

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with; made on the meta device."""
        raise NotImplementedError

    @classmethod
    def make_levels(cls, weights: Weights, folder: Pipeline) -> Levels:
        """Return the noise levels that the scheduler's config describes."""
        return read_diffusion(weights)

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with at time t for a conditioning."""
        raise NotImplementedError

    @classmethod
    def prediction(cls, folder: Pipeline, output: Tensor) -> Tensor:
        """Return the prediction in the network's output, [B, C, H, W]."""
        return output

    @classmethod
    def call(
        cls, network: nn.Module, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any
    ) -> Tensor:
        """Return the network's prediction of x_t at time t for a conditioning."""
        output = network(**cls.inputs(folder, x_t, t, text), return_dict=False)[0]
        return cls.prediction(folder, output)


def check_family(weights: Weights, pipelines: Collection[str]) -> None:
    """Refuse a folder whose `model_index.json`, if any, names none of these pipelines."""
    if weights.find(PIPELINE_INDEX) is None:
        return
    named = weights.read(PIPELINE_INDEX).get("_class_name")
    if named not in pipelines:
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {named!r:.100}; expected {', '.join(pipelines)} here",
        )


def pipeline_guidance(
    weights: Weights, config: Mapping[str, Any], pipelines: Sequence[str]
) -> float | None:
    """Return the guidance scale that a pipeline tells its UNet by default; None: it tells none.

    Raises:
        UserError: the embedding of the scale has a width that makes no sense.
    """
    width = config.get("time_cond_proj_dim")
    if width is None:
        return None
    if not is_whole(width) or width < LEAST_EMBEDDING:
        raise weights.error(
            "unet/config.json",
            f"has time_cond_proj_dim {width!r:.100}; {LEAST_EMBEDDING} or more is possible",
        )
    name = (
        weights.read(PIPELINE_INDEX)["_class_name"]
        if weights.find(PIPELINE_INDEX)
        else pipelines[0]
    )
    call = getattr(diffusers, name).__call__
    return float(signature(call).parameters["guidance_scale"].default)


@lru_cache(maxsize=4)
def read_folder(family: Any, weights: Weights, resolution: int | None) -> Pipeline:
    """Read the configs of network and autoencoder, and check that they fit each other.

    Raises:
        UserError: a part is missing, of another kind, or does not fit.
    """
    part, autoencoder = family.network_part, family.autoencoder
    config = read_config(weights, part.folder, "_class_name", family.network_classes)
    vae_config = read_config(weights, "vae", "_class_name", (autoencoder.class_name,))
    scaling, shift = read_scaling(weights, vae_config)
    empty = build_empty(weights, part, config)
    _check_channels(weights, part, empty)
    empty_vae = build_empty(weights, autoencoder.part, vae_config)
    side = family.native_side(empty.config)
    if not is_whole(side) or not 1 <= side <= LARGEST_LATENT:
        raise weights.error(
            f"{part.folder}/config.json",
            f"has sample_size {side!r:.100}; 1 to {LARGEST_LATENT} is possible",
        )
    factor = autoencoder.factor(empty_vae.config)
    resolution = resolution or side * factor
    step = factor * family.step(empty.config)
    if resolution % step or not 1 <= resolution // factor <= LARGEST_LATENT:
        raise UserError(
            f"--resolution {resolution} must be a multiple of {step}, at most"
            f" {LARGEST_LATENT * factor}."
        )
    side = resolution // factor
    shape = (family.channels(empty.config), side, side)
    folder = Pipeline(
        config,
        empty,
        vae_config,
        empty_vae,
        shape,
        resolution,
        scaling,
        shift,
        family.prompt_shape(weights),
        pipeline_guidance(weights, config, family.pipelines),
    )
    with torch.no_grad():
        _try_network(family, weights, folder)
        _try_autoencoder(family, weights, folder)
    return folder


def _check_channels(weights: Weights, part: ModelPart, empty: Any) -> None:
    """Refuse a network that is told another picture beside the noisy one."""
    config = empty.config
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if is_whole(inputs) and is_whole(outputs) and inputs > outputs > 0:
        raise weights.error(
            f"{part.folder}/config.json",
            f"has in_channels {inputs} and out_channels {outputs}: a network for inpainting,"
            " editing or upscaling, which is told another picture too. The text-to-image model"
            " that it was made from is wanted",
        )


def call_empty(family: type[Family], folder: Pipeline, gradient: bool = False) -> Tensor:
    """Call the network without memory as `denoise` does, with one latent and one prompt."""
    with torch.device("meta"), torch.set_grad_enabled(gradient):
        text = family.example(folder)
        for leaf in leaves(text).values():
            if gradient and leaf.is_floating_point():
                leaf.requires_grad_()
        x_t, t = torch.empty(1, *folder.latent_shape), torch.empty(1)
        return family.call(folder.empty, folder, x_t, t, text)


def count(family: type[Family], folder: Pipeline, gradient: bool = False) -> int:
    """Count one evaluation of a family; or one with the gradient to the conditioning."""
    # Attention written out: some kernels are not counted, those of a CPU among them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        prediction = call_empty(family, folder, gradient)
        if gradient:
            torch.autograd.backward(prediction.square().sum())  # autograd.grad cannot be counted
    return int(counter.get_total_flops())


@lru_cache(maxsize=8)
def gradient_share(family: Any, weights: Weights, resolution: int | None) -> float:
    """Return the operations of an evaluation with the gradient, over those without."""
    folder = read_folder(family, weights, resolution)
    return round(count(family, folder, gradient=True) / count(family, folder), 3)


def _try_network(family: type[Family], weights: Weights, folder: Pipeline) -> None:
    """Refuse a network that does not take what it will be given, or predicts something else."""
    name, wanted = f"{family.network_part.folder}/", list(folder.latent_shape)
    try:
        predicted = list(call_empty(family, folder).shape[1:])
    except Exception as error:  # whatever diffusers raises where shapes or arguments do not fit
        raise weights.error(
            name, f"does not take latents {wanted} and prompts: {first_line(error)}"
        ) from error
    if predicted != wanted:
        raise weights.error(name, f"predicts {predicted} for latents {wanted}")


def _try_autoencoder(family: type[Family], weights: Weights, folder: Pipeline) -> None:
    try:
        with torch.device("meta"):
            pixels = torch.empty(1, 3, folder.resolution, folder.resolution)
            encoded = family.autoencoder.encode(folder.empty_vae, pixels)[0].shape[1:]
    except Exception as error:  # as above
        raise weights.error("vae/", f"does not encode pictures: {first_line(error)}") from error
    if tuple(encoded) != folder.latent_shape:
        raise weights.error(
            "vae/",
            f"encodes a picture as {list(encoded)}; the {family.network_part.folder}/ wants"
            f" {list(folder.latent_shape)}",
        )


def same(weights: Weights, part: str, what: str, stated: Any, wanted: Any) -> None:
    """Raise `UserError` if a part's width is not the one that the network takes."""
    if stated != wanted:
        raise weights.error(
            f"{part}/config.json", f"has {what} {stated!r:.100}; the network takes {wanted!r:.100}"
        )
