"""Families of pipelines: what is theirs beside what their pipelines' own code does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from bench.contracts.levels import Levels
from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones import declared_pipelines
from bench_plugins.backbones._folding import fold_prompts
from bench_plugins.backbones._parts import EMBEDDINGS, PIPELINE_INDEX
from bench_plugins.backbones._refusals import without_index
from bench_plugins.backbones.pipeline_folder import FolderPipeline

TEXT_CHOICES = ("all", "clip")
T5_TOKENS = 256
T5_PARTS = {"text_encoder_3", "tokenizer_3"}  # of Stable Diffusion 3


class StableDiffusion(FolderPipeline):
    """Stable Diffusion 1 and 2, their fine-tunes, and smaller models of the same parts.

    Its text encoder is small: it stays in memory. A UNet that was distilled with guidance is told
    the scale: `strength`, or what its pipeline tells it unless it is asked for another one.
    """

    pipelines = declared_pipelines("sd")
    keeps_encoders = True
    prompts_at_once = 64

    @classmethod
    def check_weights(cls, weights: Weights, **settings: Any) -> None:
        """Refuse what the class would refuse; of a folder that names no class, say what it is."""
        try:
            super().check_weights(weights, **settings)
        except UserError as error:
            if weights.find(PIPELINE_INDEX) is not None:
                raise
            raise without_index(cls, weights, error) from None

    def fold_prompts(self, conditioning: Any) -> Tree:
        """Compute once what the UNet computes of these prompts alone, where that pays."""
        return {EMBEDDINGS: fold_prompts(self.network, conditioning[EMBEDDINGS])}


class StableDiffusionXL(FolderPipeline):
    """SDXL's base model and its fine-tunes.

    The network is told the picture's size before it was resized, the crop's place and the size it
    has now. Here the first is the resolution too, or `original_size`, and nothing was cropped.
    """

    pipelines = declared_pipelines("sdxl")

    def keywords(self, **parameters: Any) -> dict[str, Any]:
        """Return the picture's original size beside the others."""
        side = parameters.get("original_size")
        if side is not None and not 1 <= side <= 100_000:
            raise UserError(f"original_size={side}: 1 to 100,000 pixels are possible.")
        own = {} if side is None else {"original_size": (side, side)}
        return {**super().keywords(**parameters), **own}


class StableDiffusion3(FolderPipeline):
    """SD 3 medium, SD 3.5 medium and large, and their fine-tunes.

    With `text=clip`, T5 is not loaded, and its 256 tokens are zeros, as in the pipeline without it.
    """

    pipelines = declared_pipelines("sd3")

    @classmethod
    def without(cls, weights: Weights, **parameters: Any) -> set[str]:
        """Return T5 under `text=clip`, or where nothing is said and it is not there."""
        text = parameters.get("text")
        if text not in (None, *TEXT_CHOICES):
            raise UserError(f"text={text!r:.100}: one of {', '.join(TEXT_CHOICES)}.")
        absent = weights.find("text_encoder_3/config.json") is None
        if text == "all" and absent:
            raise weights.error(
                "text_encoder_3/config.json",
                "is not there; --set text=clip does without T5, as the pipeline does",
            )
        return T5_PARTS if text == "clip" or absent else set()

    def kept(self, tree: Tree) -> Tree:
        """Return a conditioning with zeros for T5; older versions of diffusers make fewer."""
        kept: Any = super().kept(tree)
        spare = self.pipe.tokenizer_max_length + T5_TOKENS - kept[EMBEDDINGS].shape[1]
        return {**kept, EMBEDDINGS: F.pad(kept[EMBEDDINGS], (0, 0, 0, spare))}


class Flux(FolderPipeline):
    """FLUX.1 schnell and dev.

    Dev was distilled with guidance and is told its strength: `strength`, 3.5 in its pipeline.
    Stored times are sigma, as the network takes them; the scheduler's are 1000 sigma.
    """

    pipelines = declared_pipelines("flux")

    def read_levels(self, schedule: Mapping[str, Any]) -> Levels:
        """Return the levels, whose time is sigma."""
        levels = super().read_levels(schedule)
        return replace(levels, time=levels.sigma)

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the velocity eps − x_0, [B, C, H, W]."""
        return super().denoise(x_t, 1000 * t, conditioning)


class PixArt(FolderPipeline):
    """PixArt-alpha and PixArt-Sigma; texts are put into lower case and not cleaned otherwise."""

    pipelines = declared_pipelines("pixart")

    @classmethod
    def without(cls, weights: Weights, **parameters: Any) -> set[str]:
        """Return nothing; refuse a folder that does not say which of the two it is."""
        weights.read(PIPELINE_INDEX)
        return set()


class Sana(FolderPipeline):
    """Sana 0.6B and 1.6B; the pipeline's instruction stands before every prompt."""

    pipelines = declared_pipelines("sana")


class DiT(FolderPipeline):
    """DiT-XL/2 and its like. A prompt is a class's name, number or WordNet id, and nothing else."""

    can_linearise = False  # there is nothing between two labels
    linearisation_cost = None  # type: ignore[assignment]  # so it has not this ability
    pipelines = declared_pipelines("dit")
