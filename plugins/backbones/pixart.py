"""PixArt-alpha and PixArt-Sigma: T5 with a mask, and a transformer that learned its variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import Part
from bench_plugins.backbones._folders import Folder, same
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import Encoder, last_masked, t5, union

TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
INDEX = "model_index.json"


class PixArt(LatentDenoiser):
    """PixArt-alpha, which may be told the picture's size, and PixArt-Sigma.

    Texts are put into lower case, as the pipelines do. Their cleaning of web addresses and the
    like, which needs packages of its own, is left out.
    """

    pipelines = tuple(TOKENS)
    network_part = Part(
        "transformer", "diffusion_pytorch_model", PixArtTransformer2DModel.from_config
    )
    network_classes = ("PixArtTransformer2DModel", "Transformer2DModel")  # the second: older files

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[Encoder, ...]:
        """Return T5, for 120 tokens or 300."""
        return (t5("text_encoder", "tokenizer", _length(weights, parameters.get("tokens"))),)

    @classmethod
    def check_text(
        cls, weights: Weights, network: nn.Module, texts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Check the width of T5."""
        config: Any = network.config
        same(weights, "text_encoder", "d_model", texts[0].get("d_model"), config.caption_channels)

    @classmethod
    def example(cls, network: nn.Module, folder: Folder) -> Tree:
        """Return a conditioning of one prompt, to try the network with."""
        config: Any = network.config
        length = TOKENS[pipeline_of(network)]
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

    def mix_rest(self, rest: Any, weights: torch.Tensor) -> Tree:
        """Return a mixture's mask."""
        return union(rest, weights)

    @classmethod
    def call(
        cls, network: nn.Module, folder: Folder, x_t: torch.Tensor, t: torch.Tensor, given: Any
    ) -> torch.Tensor:
        """Return the predicted noise, without the variance that is learned beside it."""
        added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if network.use_additional_conditions:
            side = float(folder.resolution)
            added["resolution"] = x_t.new_full((len(x_t), 2), side)
            added["aspect_ratio"] = x_t.new_ones(len(x_t), 1)
        predicted = network(
            x_t,
            encoder_hidden_states=given["embeddings"],
            encoder_attention_mask=given["mask"],
            timestep=t,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return predicted[:, : folder.latent_shape[0]]  # type: ignore[no-any-return]


def pipeline_of(network: Any) -> str:
    """Return whose network it is: alpha's at 1024 pixels is told the picture's size."""
    return "PixArtAlphaPipeline" if network.use_additional_conditions else "PixArtSigmaPipeline"


def _length(weights: Weights, tokens: int | None) -> int:
    """Return how many tokens texts are padded to: what the pipeline that the index names has."""
    if tokens is not None:
        if not 1 <= tokens <= 512:
            raise UserError(f"tokens={tokens}: T5 takes 1 to 512 here.")
        return tokens
    said = weights.read(INDEX).get("_class_name") if weights.find(INDEX) else None
    if said not in TOKENS:
        raise weights.error(
            INDEX, "does not say whether this is alpha or Sigma; --set tokens=120 or 300 does"
        )
    return TOKENS[str(said)]
