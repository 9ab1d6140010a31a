"""Sana: Gemma with an instruction before the prompt, a deep autoencoder, linear attention."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from diffusers import SanaPipeline, SanaTransformer2DModel
from torch import Tensor, nn

from bench.contracts.levels import Levels
from bench.engine.trees import Tree
from bench.inputs.weights import Weights
from bench_plugins.backbones._autoencoders import DEEP
from bench_plugins.backbones._checkpoint import diffusers_part
from bench_plugins.backbones._configs import read_flow
from bench_plugins.backbones._folders import Configs, Pipeline, same
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import TextEncoder, gemma, last_masked, union

GEMMA_TOKENS = 300


class Sana(LatentDenoiser):
    """Sana 0.6B and 1.6B.

    The pipeline's instruction stands before every prompt and after the first token; of the result,
    token 0 and the last 299 are kept. The empty text has no instruction. Texts are put into lower
    case, as the pipeline does.
    """

    pipelines = ("SanaPipeline",)
    network_part = diffusers_part("transformer", SanaTransformer2DModel)
    network_classes = ("SanaTransformer2DModel",)
    autoencoder = DEEP

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return Gemma 2."""
        return (gemma("text_encoder", "tokenizer", GEMMA_TOKENS),)

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Check the width of Gemma."""
        config: Any = network.config
        width = configs[0].get("hidden_size")
        same(weights, "text_encoder", "hidden_size", width, config.caption_channels)

    @classmethod
    def make_levels(cls, weights: Weights, folder: Pipeline) -> Levels:
        """Return the flow's levels; the network is told 1000 sigma, times its own scale."""
        side = folder.latent_shape[-1]
        return read_flow(weights, side * side)

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = folder.empty.config
        if config.guidance_embeds:
            raise ValueError("it is told a guidance, as Sana-Sprint is")
        return {
            "embeddings": torch.empty(1, GEMMA_TOKENS, config.caption_channels),
            "mask": torch.ones(1, GEMMA_TOKENS, dtype=torch.int64),
        }

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return embeddings [n, 300, D] and their mask, int64 [n, 300]."""
        return self._encode([text.lower().strip() for text in texts], instruction())

    def encode_null(self) -> Tree:
        """Return the empty text's, without the instruction."""
        return self._encode([""], "")

    def _encode(self, texts: Sequence[str], prefix: str) -> Tree:
        [encoder] = self.encoders(self.weights, **self.parameters)
        length = GEMMA_TOKENS
        if prefix:  # two tokens are counted twice: the first, and the last of the prompt
            length += len(encoder.tokens(self.weights).encode(prefix)) - 2
        tokens = encoder.ids(self.weights, [prefix + text for text in texts], length)
        [embeddings] = self.encoded(encoder, tokens, last_masked)
        kept = [0, *range(1 - GEMMA_TOKENS, 0)]
        return {"embeddings": embeddings[:, kept], "mask": tokens[1][:, kept].to(self.device)}

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's mask."""
        return union(rest, weights)

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with."""
        return {
            "hidden_states": x_t,
            "encoder_hidden_states": text["embeddings"],
            "encoder_attention_mask": text["mask"],
            "timestep": t * folder.empty.config.timestep_scale,
        }


def instruction() -> str:
    """Return what the pipeline puts before a prompt."""
    lines = signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    return "\n".join(lines)
