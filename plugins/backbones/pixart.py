"""PixArt-alpha and PixArt-Sigma: T5 with a mask, and a transformer that learned its variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import diffusers_part
from bench_plugins.backbones._folders import PIPELINE_INDEX, Configs, Pipeline, same
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import TextEncoder, last_masked, t5, union

TOKENS_BY_PIPELINE = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}


class PixArt(LatentDenoiser):
    """PixArt-alpha, which may be told the picture's size, and PixArt-Sigma.

    Texts are put into lower case, as the pipelines do. Their cleaning of web addresses and the
    like, which needs packages of its own, is left out.
    """

    pipelines = tuple(TOKENS_BY_PIPELINE)
    network_part = diffusers_part("transformer", PixArtTransformer2DModel)
    network_classes = ("PixArtTransformer2DModel", "Transformer2DModel")  # the second: older files

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return T5, for 120 tokens or 300."""
        return (t5("text_encoder", "tokenizer", _length(weights, parameters.get("tokens"))),)

    @classmethod
    def check_text(cls, weights: Weights, network: nn.Module, configs: Configs) -> None:
        """Check the width of T5."""
        config: Any = network.config
        same(weights, "text_encoder", "d_model", configs[0].get("d_model"), config.caption_channels)

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = folder.empty.config
        length = TOKENS_BY_PIPELINE[pipeline_of(folder.empty)]
        return {
            "embeddings": torch.empty(1, length, config.caption_channels),
            "mask": torch.ones(1, length, dtype=torch.int64),
        }

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return embeddings [n, L, D] and their mask, int64 [n, L]."""
        [encoder] = self.encoders(self.weights, **self.parameters)
        tokens = encoder.ids(self.weights, [text.lower().strip() for text in texts])
        [embeddings] = self.encoded(encoder, tokens, last_masked)
        return {"embeddings": embeddings, "mask": tokens[1].to(self.device)}

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's mask."""
        return union(rest, weights)

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with."""
        added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if folder.empty.use_additional_conditions:
            side = float(folder.resolution)
            added["resolution"] = x_t.new_full((len(x_t), 2), side)
            added["aspect_ratio"] = x_t.new_ones(len(x_t), 1)
        return {
            "hidden_states": x_t,
            "encoder_hidden_states": text["embeddings"],
            "encoder_attention_mask": text["mask"],
            "timestep": t,
            "added_cond_kwargs": added,
        }

    @classmethod
    def prediction(cls, folder: Pipeline, output: Tensor) -> Tensor:
        """Return the predicted noise, without the variance that is learned beside it."""
        return output[:, : folder.latent_shape[0]]


def pipeline_of(network: Any) -> str:
    """Return whose network it is: alpha's at 1024 pixels is told the picture's size."""
    return "PixArtAlphaPipeline" if network.use_additional_conditions else "PixArtSigmaPipeline"


def _length(weights: Weights, tokens: int | None) -> int:
    """Return how many tokens texts are padded to: what the pipeline that the index names has."""
    if tokens is not None:
        if not 1 <= tokens <= 512:
            raise UserError(f"tokens={tokens}: T5 takes 1 to 512 here.")
        return tokens
    index = weights.read(PIPELINE_INDEX) if weights.find(PIPELINE_INDEX) else {}
    kind = index.get("_class_name")
    if kind not in TOKENS_BY_PIPELINE:
        raise weights.error(
            PIPELINE_INDEX,
            "does not say whether this is alpha or Sigma; --set tokens=120 or 300 does",
        )
    return TOKENS_BY_PIPELINE[str(kind)]
