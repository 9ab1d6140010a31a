"""Families of pipelines, whose classes add parameters and checks to the pipelines' own code."""

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

    The text encoder is small and stays in memory. A UNet that was distilled with guidance takes the
    scale as an input: `strength`, or the default of its pipeline.
    """

    pipelines = declared_pipelines("sd")
    keeps_encoders = True
    prompts_at_once = 64

    @classmethod
    def check_weights(cls, weights: Weights, **settings: Any) -> None:
        """Refuse weights that do not load; the error says what a folder without an index is."""
        try:
            super().check_weights(weights, **settings)
        except UserError as error:
            if weights.find(PIPELINE_INDEX) is not None:
                raise
            raise without_index(cls, weights, error) from None

    def fold_prompts(self, conditioning: Any) -> Tree:
        """Compute once the UNet's results that depend on the prompts alone, if that pays."""
        return {EMBEDDINGS: fold_prompts(self.network, conditioning[EMBEDDINGS])}


class StableDiffusionXL(FolderPipeline):
    """SDXL's base model and its fine-tunes.

    The network takes the picture's original size, the place of the crop and the present size as
    inputs. The original size is the resolution or `original_size`, and nothing is cropped.
    """

    pipelines = declared_pipelines("sdxl")

    def keywords(self, **parameters: Any) -> dict[str, Any]:
        """Return the keywords, with the picture's original size."""
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
        """Return T5 under `text=clip`, or if it is absent and `text` is not set."""
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

    def as_stored(self, tree: Tree) -> Tree:
        """Return a conditioning with all zeros of a missing T5; older diffusers make fewer."""
        stored: Any = super().as_stored(tree)
        spare = self.pipe.tokenizer_max_length + T5_TOKENS - stored[EMBEDDINGS].shape[1]
        return {**stored, EMBEDDINGS: F.pad(stored[EMBEDDINGS], (0, 0, 0, spare))}


class Flux(FolderPipeline):
    """FLUX.1 schnell and dev.

    Dev was distilled with guidance and takes the scale as an input: `strength`, 3.5 in its
    pipeline. The times are sigma, as the network takes them; the scheduler's are 1000 sigma.
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
    """PixArt-alpha and PixArt-Sigma; texts are in lower case and not cleaned otherwise."""

    pipelines = declared_pipelines("pixart")

    @classmethod
    def without(cls, weights: Weights, **parameters: Any) -> set[str]:
        """Return no parts; refuse a folder without an index, which could be either of the two."""
        weights.read(PIPELINE_INDEX)
        return set()


class Sana(FolderPipeline):
    """Sana 0.6B and 1.6B; the pipeline's instruction stands before every prompt."""

    pipelines = declared_pipelines("sana")


class DiT(FolderPipeline):
    """DiT-XL/2 and similar models. A prompt is a class's name, number or WordNet id."""

    can_linearise = False  # there is nothing between two labels
    linearisation_cost = None  # type: ignore[assignment]  # so it has not this ability
    pipelines = declared_pipelines("dit")
