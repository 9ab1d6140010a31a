"""What a family's folder holds: configs of network and autoencoder, and modules without memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from torch import nn

from bench.engine.trees import leaves
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import build_empty, first_line
from bench_plugins.backbones._configs import is_whole, read_config, read_scaling

if TYPE_CHECKING:
    from bench_plugins.backbones._latent import LatentDenoiser

INDEX = "model_index.json"
LEAST_EMBEDDING = 4  # of a guidance scale; of fewer numbers, half are not finite
LARGEST_LATENT = 1024  # side of a latent; the largest known models have 128


@dataclass(frozen=True)
class Folder:
    """What the configs of network and autoencoder say, checked.

    Attributes:
        config: the network's.
        empty: the network without memory for its tensors.
        vae_config: the autoencoder's.
        empty_vae: the autoencoder without memory for its tensors.
        latent_shape: (C, H, W).
        resolution: image side in pixels.
        scaling: what latents are multiplied with.
        shift: what is subtracted from them before.
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


def check_family(weights: Weights, pipelines: Collection[str]) -> None:
    """Refuse a folder whose `model_index.json` names another pipeline; it may have none.

    Args:
        weights: the pipeline.
        pipelines: those that are known.
    """
    if weights.find(INDEX) is None:
        return
    named = weights.read(INDEX).get("_class_name")
    if named not in pipelines:
        raise weights.error(
            INDEX, f"says _class_name {named!r:.100}; {', '.join(pipelines)} is wanted here"
        )


def pipeline_guidance(
    weights: Weights, config: Mapping[str, Any], pipelines: Sequence[str]
) -> float | None:
    """Return the guidance scale that a pipeline tells its UNet by default; None: it tells none.

    Args:
        weights: the pipeline; without an index it is the first of `pipelines`.
        config: of the network.
        pipelines: classes of diffusers.

    Raises:
        UserError: the embedding of the scale has a width that makes no sense.
    """
    width = config.get("time_cond_proj_dim")
    if width is None:
        return None
    if not is_whole(width) or width < LEAST_EMBEDDING:
        raise weights.error(
            "unet/config.json",
            f"says time_cond_proj_dim {width!r:.100}; {LEAST_EMBEDDING} or more is possible",
        )
    name = weights.read(INDEX)["_class_name"] if weights.find(INDEX) else pipelines[0]
    call = getattr(diffusers, name).__call__
    return float(signature(call).parameters["guidance_scale"].default)


def read_folder(family: type[LatentDenoiser], weights: Weights, resolution: int | None) -> Folder:
    """Read the configs of network and autoencoder, and check that they fit each other.

    Args:
        family: says which classes they are of.
        weights: the pipeline.
        resolution: image side in pixels; None: what the model was made for.

    Raises:
        UserError: a part is missing, of another kind, or does not fit.
    """
    given: Any = family  # mypy takes a class for no key of a cache
    return _read_folder(given, weights, resolution)


@lru_cache(maxsize=4)
def _read_folder(family: Any, weights: Weights, resolution: int | None) -> Folder:
    part, autoencoder = family.network_part, family.autoencoder
    config = read_config(weights, part.folder, "_class_name", family.network_classes)
    vae_config = read_config(weights, "vae", "_class_name", (autoencoder.known,))
    scaling, shift = read_scaling(weights, vae_config)
    empty = build_empty(weights, part, config)
    empty_vae = build_empty(weights, autoencoder.part, vae_config)
    side = family.native_side(empty.config)
    if not is_whole(side) or not 1 <= side <= LARGEST_LATENT:
        raise weights.error(
            f"{part.folder}/config.json",
            f"says sample_size {side!r:.100}; 1 to {LARGEST_LATENT} is possible",
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
    folder = Folder(
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


def call_network(
    family: type[LatentDenoiser], network: nn.Module, folder: Folder, gradient: bool = False
) -> torch.Tensor:
    """Call a network on the meta device as `denoise` does, with one latent and one prompt.

    Args:
        family: says how.
        network: made on the meta device.
        folder: its configs.
        gradient: whether the floating leaves of the conditioning ask for one.
    """
    with torch.device("meta"), torch.set_grad_enabled(gradient):
        given = family.example(network, folder)
        for leaf in leaves(given).values():
            if gradient and leaf.is_floating_point():
                leaf.requires_grad_()
        x_t, t = torch.empty(1, *folder.latent_shape), torch.empty(1)
        return family.call(network, folder, x_t, t, given)


def _try_network(family: type[LatentDenoiser], weights: Weights, folder: Folder) -> None:
    """Refuse a network that does not take what it will be given, or predicts something else."""
    name, wanted = f"{family.network_part.folder}/", list(folder.latent_shape)
    try:
        found = list(call_network(family, folder.empty, folder).shape[1:])
    except Exception as error:  # whatever diffusers raises where shapes or arguments do not fit
        raise weights.error(
            name, f"does not take latents {wanted} and prompts: {first_line(error)}"
        ) from error
    if found != wanted:
        raise weights.error(name, f"predicts {found} for latents {wanted}")


def _try_autoencoder(family: type[LatentDenoiser], weights: Weights, folder: Folder) -> None:
    """Call the empty autoencoder as `encode_images` does."""
    try:
        with torch.device("meta"):
            pixels = torch.empty(1, 3, folder.resolution, folder.resolution)
            found = family.autoencoder.encode(folder.empty_vae, pixels)[0].shape[1:]
    except Exception as error:  # as above
        raise weights.error("vae/", f"does not encode pictures: {first_line(error)}") from error
    if tuple(found) != folder.latent_shape:
        raise weights.error(
            "vae/",
            f"encodes a picture as {list(found)}; the {family.network_part.folder}/ wants"
            f" {list(folder.latent_shape)}",
        )


def same(weights: Weights, part: str, what: str, found: Any, wanted: Any) -> None:
    """Refuse a part whose width is not the one that the network takes.

    Raises:
        UserError: it is another.
    """
    if found != wanted:
        raise weights.error(
            f"{part}/config.json", f"says {what} {found!r:.100}; the network takes {wanted!r:.100}"
        )
