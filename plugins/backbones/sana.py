"""Sana: Gemma with an instruction before the prompt, a deep autoencoder, linear attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from diffusers import SanaPipeline, SanaTransformer2DModel
from torch import nn

from bench.contracts.levels import Levels
from bench.engine.trees import Tree
from bench.inputs.weights import Weights
from bench_plugins.backbones._autoencoders import DEEP
from bench_plugins.backbones._checkpoint import Part
from bench_plugins.backbones._configs import read_flow
from bench_plugins.backbones._folders import Folder, same
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import Encoder, gemma, last_masked, union

TOKENS = 300


class Sana(LatentDenoiser):
    """Sana 0.6B and 1.6B.

    The pipeline's instruction stands before every prompt and after the first token; of the result,
    token 0 and the last 299 are kept. The empty text has no instruction. Texts are put into lower
    case, as the pipeline does.
    """

    pipelines = ("SanaPipeline",)
    network_part = Part(
        "transformer", "diffusion_pytorch_model", SanaTransformer2DModel.from_config
    )
    network_classes = ("SanaTransformer2DModel",)
    autoencoder = DEEP

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[Encoder, ...]:
        """Return Gemma 2."""
        return (gemma("text_encoder", "tokenizer", TOKENS),)

    @classmethod
    def check_text(
        cls, weights: Weights, network: nn.Module, texts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Check the width of Gemma."""
        config: Any = network.config
        width = texts[0].get("hidden_size")
        same(weights, "text_encoder", "hidden_size", width, config.caption_channels)

    @classmethod
    def make_levels(cls, weights: Weights, folder: Folder) -> Levels:
        """Return the flow's levels; the network is told 1000 sigma, times its own scale."""
        side = folder.latent_shape[-1]
        return read_flow(weights, side * side)

    @classmethod
    def example(cls, network: nn.Module, folder: Folder) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = network.config
        if config.guidance_embeds:
            raise ValueError("it is told a guidance, as Sana-Sprint is")
        return {
            "embeddings": torch.empty(1, TOKENS, config.caption_channels),
            "mask": torch.ones(1, TOKENS, dtype=torch.int64),
        }

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return embeddings [n, 300, D] and their mask, int64 [n, 300]."""
        return self._encode([text.lower().strip() for text in texts], instruction())

    def encode_null(self) -> Tree:
        """Return the empty text's, without the instruction."""
        return self._encode([""], "")

    def _encode(self, texts: Sequence[str], prefix: str) -> Tree:
        [encoder] = self.encoders(self.weights, **self.parameters)
        length = TOKENS
        if prefix:  # two tokens are counted twice: the first, and the last of the prompt
            length += len(encoder.tokens(self.weights).encode(prefix)) - 2
        tokens = encoder.ids(self.weights, [prefix + text for text in texts], length)
        [embeddings] = self.encoded(encoder, tokens, last_masked)
        kept = [0, *range(1 - TOKENS, 0)]
        return {"embeddings": embeddings[:, kept], "mask": tokens[1][:, kept].to(self.device)}

    def mix_rest(self, rest: Any, weights: torch.Tensor) -> Tree:
        """Return a mixture's mask."""
        return union(rest, weights)

    @classmethod
    def call(
        cls, network: nn.Module, folder: Folder, x_t: torch.Tensor, t: torch.Tensor, given: Any
    ) -> torch.Tensor:
        """Return the predicted velocity, eps − x_0."""
        config: Any = network.config
        predicted: torch.Tensor = network(
            x_t,
            encoder_hidden_states=given["embeddings"],
            encoder_attention_mask=given["mask"],
            timestep=t * config.timestep_scale,
            return_dict=False,
        )[0]
        return predicted


def instruction() -> str:
    """Return what the pipeline puts before a prompt."""
    lines = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    return "\n".join(lines)
