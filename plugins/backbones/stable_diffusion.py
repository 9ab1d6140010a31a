"""Stable Diffusion and every pipeline of its shape: VAE, CLIP text encoder, conditional UNet.

The network is called here and not by the pipeline's code, so that what it computes of the prompts
alone can be computed once: of a small network that is most of what the pipeline's code costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import LatentConsistencyModelPipeline, UNet2DConditionModel
from torch import Tensor, nn

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._parts import EMBEDDINGS, PIPELINE_INDEX
from bench_plugins.backbones._refusals import without_index
from bench_plugins.backbones.pipeline_folder import FolderPipeline


class StableDiffusion(FolderPipeline):
    """Stable Diffusion 1 and 2, their fine-tunes, and smaller models of the same parts.

    Its text encoder is small: it stays in memory. Network and VAE are read at once, so that a
    value that is not finite is found before an image is. A UNet that was distilled with guidance is
    told the scale: `strength`, or what its pipeline tells it unless it is asked for another one.
    """

    pipelines = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    )
    keeps_encoders = True
    prompts_at_once = 64

    def __init__(self, weights: Weights, **settings: Any) -> None:
        super().__init__(weights, **settings)
        self.__dict__.pop("_scale", None)  # of the pipeline without tensors
        _ = self.network

    @classmethod
    def check_weights(cls, weights: Weights, **settings: Any) -> None:
        """Refuse what the class would refuse; of a folder that names no class, say what it is."""
        try:
            super().check_weights(weights, **settings)
        except UserError as error:
            if weights.find(PIPELINE_INDEX) is not None:
                raise
            raise without_index(cls, weights, error) from None

    def check_network(self) -> None:
        """Refuse a UNet that takes no prompts."""
        if not uses_prompts(self.pipe.unet):
            raise self.weights.error("unet/config.json", "describes a model that takes no prompts")

    @property
    def text_encoder(self) -> Any:
        """The text encoder, loaded when it is first needed: embeddings may be in the cache."""
        self._load("text_encoder")
        return self.pipe.text_encoder

    def example(self) -> Tensor:
        """Return the conditioning of a short text, one row."""
        return self.shortest[EMBEDDINGS]

    def encode_prompts(self, texts: Sequence[str]) -> Tensor:
        """Return [n, L, D] in the model's dtype, every prompt padded to the full length L."""
        tree: Any = super().encode_prompts(texts)
        return tree[EMBEDDINGS]  # type: ignore[no-any-return]

    def encode_null(self) -> Tensor:
        """Return the conditioning of the empty text, [1, L, D]."""
        return self.encode_prompts([""])

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the network's prediction, [B, C, H, W] in the model's dtype."""
        scale = self._scale
        prediction: Tensor = self.network(
            x_t.to(self.dtype),
            t,
            encoder_hidden_states=conditioning,
            timestep_cond=None if scale is None else scale.expand(len(x_t), -1),
            return_dict=False,
        )[0]
        return prediction

    def fold_prompts(self, conditioning: Tensor) -> Tensor:
        """Compute once what the UNet computes of these prompts alone, where that pays."""
        return fold_prompts(self.network, conditioning)

    @cached_property
    def _scale(self) -> Tensor | None:
        """The embedding of the guidance scale, [1, D], as diffusers' pipelines compute it."""
        if not self.is_told_guidance:
            return None
        scale = float(self.call.get("guidance_scale", self._takes["guidance_scale"].default))
        embed: Any = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        width = self.network.config.time_cond_proj_dim
        with torch.device("cpu"), torch.inference_mode(False):
            made: Tensor = embed(None, torch.tensor([scale - 1]), embedding_dim=width)
        return made.to(device=self.device, dtype=self.dtype)


LIMIT = 64_000_000  # bytes of results; beyond, fetching them costs more than computing them


class Folded(nn.Module):
    """A module with its results for the run's prompts.

    Called with prompt numbers, int64 [B, 1, 1], it looks its result up; called with a conditioning,
    [B, L, D], it computes, as before.
    """

    results: Tensor

    def __init__(self, original: nn.Module, conditioning: Tensor) -> None:
        super().__init__()
        self.original = original
        results = original(conditioning)
        self.shape = results.shape[1:]
        self.register_buffer("results", results.flatten(1), persistent=False)

    def forward(self, conditioning: Tensor) -> Tensor:
        """Return the module's results, [B, …]."""
        if conditioning.is_floating_point():
            computed: Tensor = self.original(conditioning)
            return computed
        return F.embedding(conditioning.flatten(), self.results).view(-1, *self.shape)


@torch.no_grad()
def fold_prompts(unet: UNet2DConditionModel, conditioning: Tensor) -> Tensor:
    """Give `unet` its results for the prompts of a conditioning, [P, L, D], in place.

    Returns:
        What stands for the conditioning: int64 [P, 1, 1]. Where the results would be too large,
        or the UNet changes the conditioning before it is used, the conditioning itself.
    """
    unfold_prompts(unet)
    config = unet.config
    if config.encoder_hid_dim_type or config.cross_attention_norm:
        return conditioning
    children = _prompt_only(unet)
    tokens = conditioning.shape[0] * conditioning.shape[1]
    widths = sum(getattr(getattr(m, name), "out_features", 0) for m, name in children)
    if tokens * widths * conditioning.element_size() > LIMIT:
        return conditioning
    for module, name in children:
        setattr(module, name, Folded(getattr(module, name), conditioning))
    return torch.arange(len(conditioning), device=conditioning.device)[:, None, None]


def unfold_prompts(unet: UNet2DConditionModel) -> None:
    """Undo `fold_prompts`."""
    for module in list(unet.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Folded):
                setattr(module, name, child.original)


def uses_prompts(unet: UNet2DConditionModel) -> bool:
    """Return whether the UNet computes anything of its conditioning."""
    return bool(_prompt_only(unet))


def _prompt_only(unet: UNet2DConditionModel) -> list[tuple[nn.Module, str]]:
    children = [
        (module, name)
        for module in unet.modules()
        if getattr(module, "is_cross_attention", False) and hasattr(module, "to_k")
        for name in ("to_k", "to_v")
    ]
    if unet.config.addition_embed_type == "text":
        children.append((unet, "add_embedding"))
    return children
