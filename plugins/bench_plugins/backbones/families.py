"""Backbone families: pipelines in folders, with parameters and checks of their own."""

from typing import Any

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from typing_extensions import override

from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones import declared_pipelines
from bench_plugins.backbones._weights.components import EMBEDDINGS
from bench_plugins.backbones.pipeline_folder import FolderPipeline

# Of Stable Diffusion 3, whose texts are read by CLIP and by T5.
TEXT_CHOICES = ("all", "clip")
T5_COMPONENTS = frozenset({"text_encoder_3", "tokenizer_3"})
T5_TOKENS = 256  # per text, after those of CLIP


class StableDiffusion(FolderPipeline):
    """Stable Diffusion 1 and 2, their fine-tunes, and smaller models with the same components.

    A guidance-distilled UNet takes the guidance scale as an input: `strength`, or its pipeline's
    default.
    """

    pipelines = declared_pipelines("sd")


class StableDiffusionXL(FolderPipeline):
    """SDXL's base model and its fine-tunes.

    The network is conditioned on the original size of the image, its crop and its present size. The
    original size is `original_size` or else the resolution, and the crop starts at (0, 0).
    """

    pipelines = declared_pipelines("sdxl")


class StableDiffusion3(FolderPipeline):
    """SD 3 medium, SD 3.5 medium and large, and their fine-tunes.

    With `text=clip`, T5 is not loaded, and its 256 token embeddings are zeros. The pipeline does
    the same if its folder has no T5.
    """

    pipelines = declared_pipelines("sd3")

    @classmethod
    @override
    def omitted_components(cls, weights: Weights, text: str | None) -> frozenset[str]:
        if text not in (None, *TEXT_CHOICES):
            raise UserError(f"text must be one of {', '.join(TEXT_CHOICES)}, got {text!r:.100}.")
        config = "text_encoder_3/config.json"
        absent = weights.find(config) is None
        if text == "all" and absent:
            raise weights.error(
                config, "does not exist; --set text=clip does without T5, as the pipeline does"
            )
        return T5_COMPONENTS if text == "clip" or absent else frozenset()

    @override
    def as_stored(self, tree: Tree) -> Tree:
        stored: Any = tree
        embeddings = stored[EMBEDDINGS]  # [prompts, tokens, width]
        clip_tokens = self.pipe.tokenizer_max_length
        # Without T5, older diffusers return fewer zero embeddings than T5 has tokens.
        missing = clip_tokens + T5_TOKENS - embeddings.shape[1]
        return {**stored, EMBEDDINGS: F.pad(embeddings, (0, 0, 0, missing))}


class Flux(FolderPipeline):
    """FLUX.1 schnell and dev.

    Dev is guidance-distilled and takes the guidance scale as an input: `strength`, 3.5 in its
    pipeline. The network and the level table have sigma as the time; the times of the scheduler are
    sigma × `num_train_timesteps` of its config (1000 by default).
    """

    pipelines = declared_pipelines("flux")
    time_is_sigma = True


class PixArt(FolderPipeline):
    """PixArt-alpha and PixArt-Sigma. Texts are lowercased, and not cleaned otherwise."""

    pipelines = declared_pipelines("pixart")


class Sana(FolderPipeline):
    """Sana 0.6B and 1.6B. The pipeline puts its instruction before every prompt."""

    pipelines = declared_pipelines("sana")


class DiT(FolderPipeline):
    """DiT-XL/2 and similar models. A prompt is a class's name, number or WordNet id."""

    can_linearise = False  # labels cannot be interpolated
    pipelines = declared_pipelines("dit")
