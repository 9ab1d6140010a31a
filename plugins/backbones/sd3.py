"""Stable Diffusion 3 and 3.5: two CLIP text encoders, T5, and a rectified flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from bench.contracts.levels import Levels
from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import diffusers_part
from bench_plugins.backbones._configs import read_flow
from bench_plugins.backbones._folders import Configs, Pipeline, same
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import TextEncoder, clip, last, penultimate_and_pooled, t5

T5_TOKENS = 256
TEXT_CHOICES = ("all", "clip")


class StableDiffusion3(LatentDenoiser):
    """SD 3 medium, SD 3.5 medium and large, and their fine-tunes.

    With `text=clip`, T5 is not loaded, and its 256 tokens are zeros, as in the pipeline without it.
    """

    pipelines = ("StableDiffusion3Pipeline",)
    network_part = diffusers_part("transformer", SD3Transformer2DModel)
    network_classes = ("SD3Transformer2DModel",)

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return CLIP ViT-L, OpenCLIP ViT-bigG and T5, the last unless `text=clip`."""
        text = parameters.get("text", "all")
        if text not in TEXT_CHOICES:
            raise UserError(f"text={text!r:.100}: one of {', '.join(TEXT_CHOICES)}.")
        if parameters.get("text") == "all" and not weights.find("text_encoder_3/config.json"):
            raise weights.error(
                "text_encoder_3/config.json",
                "is not there; --set text=clip does without T5, as the pipeline does",
            )
        both = tuple(clip(f"text_encoder{n}", f"tokenizer{n}", projected=True) for n in ("", "_2"))
        return both if text == "clip" else (*both, t5("text_encoder_3", "tokenizer_3", T5_TOKENS))

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Check the pooled width of CLIP, and the width of T5."""
        config: Any = network.config
        first = configs[0].get("projection_dim") or 0
        wanted = config.pooled_projection_dim - first
        same(weights, "text_encoder_2", "projection_dim", configs[1].get("projection_dim"), wanted)
        for text in configs[2:]:
            width = text.get("d_model")
            same(weights, "text_encoder_3", "d_model", width, config.joint_attention_dim)

    @classmethod
    def make_levels(cls, weights: Weights, folder: Pipeline) -> Levels:
        """Return the flow's levels; the network is told 1000 sigma."""
        side = folder.latent_shape[-1] // cls.step(folder.empty.config)
        return read_flow(weights, side * side)

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = folder.empty.config
        return {
            "embeddings": torch.empty(1, 77 + T5_TOKENS, config.joint_attention_dim),
            "pooled": torch.empty(1, config.pooled_projection_dim),
        }

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return embeddings [n, 77 + 256, D] and pooled text [n, D']."""
        first, second, *third = self.encoders(self.weights, **self.parameters)
        small, pooled = self.encoded(first, first.ids(self.weights, texts), penultimate_and_pooled)
        large, more = self.encoded(second, second.ids(self.weights, texts), penultimate_and_pooled)
        width = self._folder.empty.config.joint_attention_dim
        clips = torch.cat([small, large], dim=-1)
        clips = F.pad(clips, (0, width - clips.shape[-1]))
        if third:
            [long] = self.encoded(third[0], third[0].ids(self.weights, texts), last)
        else:
            long = clips.new_zeros(len(texts), T5_TOKENS, width)
        return {
            "embeddings": torch.cat([clips, long], dim=1),
            "pooled": torch.cat([pooled, more], dim=-1),
        }

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with."""
        return {
            "hidden_states": x_t,
            "timestep": t,
            "encoder_hidden_states": text["embeddings"],
            "pooled_projections": text["pooled"],
        }
