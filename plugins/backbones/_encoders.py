"""CLIP, SigLIP and DINOv2: checked and loaded when needed; embeddings are cached on disk."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import (
    ModelPart,
    build_empty,
    find_tensors,
    load,
    transformers_part,
)
from bench_plugins.backbones._configs import check_class, is_whole, read_config
from bench_plugins.backbones._kept import Kept, image_key, text_key
from bench_plugins.backbones._preprocessing import (
    Patching,
    Preprocessing,
    read_patching,
    read_preprocessing,
)
from bench_plugins.backbones._tokenizers import clip_tokenizer, siglip_tokenizer

HERE = "."  # these models are one part, in the folder itself

# Older files also hold the positions 0, 1, 2 …
_POSITIONS = tuple(f"{side}_model.embeddings.position_ids" for side in ("text", "vision"))
# Names of DINOv2's tensors on the Hub → in transformers 5.
_DINO = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def _dino_name(name: str) -> str:
    for old, new in _DINO.items():
        name = name.replace(old, new)
    return name


@dataclass(frozen=True)
class Kind:
    """A kind of encoder.

    Attributes:
        model_type: the `model_type` in its config.
        part: how it is built and stored.
        tokens: returns the tokenizer, for a kind that embeds texts, too.
        written: prepares a text for the tokenizer.
    """

    model_type: str
    part: ModelPart
    tokens: Callable[[Weights, Any], Any] | None = None
    written: Callable[[str], str] = str


def _clip_tokens(weights: Weights, text: Any) -> Any:
    return clip_tokenizer(weights, HERE, text.max_position_embeddings, text.vocab_size)


def _siglip_tokens(weights: Weights, text: Any) -> Any:
    return siglip_tokenizer(weights, text.max_position_embeddings, text.vocab_size)


def canonical(text: str) -> str:
    """Return a text as SigLIP was trained on: lower case, without punctuation, single spaces."""
    bare = text.translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", bare).strip().lower()


CLIP = Kind(
    "clip",
    transformers_part(HERE, CLIPModel, CLIPConfig, unused=_POSITIONS),
    _clip_tokens,
)
_SIGLIP_PART = transformers_part(HERE, SiglipModel, SiglipConfig, unused=_POSITIONS)
SIGLIP = Kind("siglip", _SIGLIP_PART, _siglip_tokens, canonical)
# The second generation keeps punctuation (Tschannen et al., 2025).
SIGLIP2 = Kind("siglip", _SIGLIP_PART, _siglip_tokens, str.lower)
# Of any aspect ratio and resolution, in classes of its own.
NAFLEX = Kind(
    "siglip2",
    transformers_part(HERE, Siglip2Model, Siglip2Config, unused=_POSITIONS),
    _siglip_tokens,
    str.lower,
)
DINOV2 = Kind(
    "dinov2",
    transformers_part(HERE, Dinov2Model, Dinov2Config, renamed=_dino_name),
)
ENCODER_KINDS = (CLIP, SIGLIP, NAFLEX, DINOV2)


def kind_of(weights: Weights, kinds: Sequence[Kind] = ENCODER_KINDS) -> Kind:
    """Return the kind of encoder in a folder, one of `kinds`; those that embed images by default.

    Raises:
        UserError: it is none of them.
    """
    config = weights.read("config.json")
    types = [kind.model_type for kind in kinds]
    check_class(weights, "config.json", config, "model_type", types)
    return kinds[types.index(config["model_type"])]


EMBEDDING_VERSION = 1  # raise it when the code here changes embeddings
ENCODER_BATCH = 64  # texts

Rows = NDArray[np.float32]


class Encoder:
    """A model's image and text embeddings, each computed once for these weights.

    The network is loaded when an embedding is not in the cache.

    Raises:
        UserError: the folder holds another kind, or its parts are missing or damaged.
    """

    def __init__(self, weights: Weights, kind: Kind, device: str, dtype: str) -> None:
        self.weights, self.kind = weights, kind
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.raw = read_config(weights, HERE, "model_type", (kind.model_type,))
        empty: Any = build_empty(weights, kind.part, self.raw)
        find_tensors(weights, kind.part, empty, self.dtype)
        width = self.dtype.itemsize
        self.size: int = sum(tensor.numel() * width for tensor in empty.parameters())  # bytes
        self.config: Any = empty.config
        self.prepared = self._preprocessing()
        self.tokens = None if kind.tokens is None else kind.tokens(weights, self.config.text_config)
        written = getattr(kind.written, "__name__", "")
        self.kept = Kept(
            f"{kind.model_type} {written} {EMBEDDING_VERSION} {weights.fingerprint} {dtype}"
        )

    def _preprocessing(self) -> Preprocessing | Patching:
        if self.kind is NAFLEX:
            return read_patching(self.weights, self.config.vision_config.patch_size)
        if self.kind is DINOV2:  # which interpolates its positions
            return read_preprocessing(self.weights, None)
        side = self.config.vision_config.image_size
        return read_preprocessing(self.weights, side if is_whole(side) else None)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        if self.kind is CLIP:
            return int(self.config.projection_dim)
        return int((self.config if self.kind is DINOV2 else self.config.vision_config).hidden_size)

    @property
    def limit(self) -> int:
        """Largest number of tokens of a text."""
        return int(self.config.text_config.max_position_embeddings)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of each text's tokens, special ones included."""
        assert self.tokens is not None
        written = [self.kind.written(text) for text in texts]
        return [len(ids) for ids in self.tokens(written)["input_ids"]] if written else []

    @cached_property
    def network(self) -> Any:
        """The network, loaded when it is first needed."""
        return load(self.weights, self.kind.part, self.raw, self.dtype, self.device)

    def images(self, images: Sequence[Image.Image]) -> Rows:
        """Return the images' embeddings, float32 [n, D], of length 1."""
        keys = [image_key(image) for image in images]

        def make(places: Sequence[int]) -> Rows:
            return self._embed_images([images[place] for place in places])

        return self.kept.rows(keys, self.width, make)

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return the texts' embeddings, float32 [n, D], of length 1."""
        keys = [text_key(text) for text in texts]

        def make(places: Sequence[int]) -> Rows:
            some = [texts[place] for place in places]
            groups = [
                some[start : start + ENCODER_BATCH] for start in range(0, len(some), ENCODER_BATCH)
            ]
            return np.concatenate([self._embed_texts(group) for group in groups])

        return self.kept.rows(keys, self.width, make)

    @cached_property
    def scale_and_bias(self) -> tuple[float, float]:
        """Scale and bias of a logit, from a cosine."""

        def make(places: Sequence[int]) -> Rows:
            scale = self.network.logit_scale.float().exp().item()
            bias = getattr(self.network, "logit_bias", torch.zeros(1)).float().item()
            return np.array([[scale, bias]], np.float32)

        scale, bias = self.kept.rows([b"scale and bias"], 2, make)[0].tolist()
        return scale, bias

    @torch.inference_mode()
    def _embed_images(self, images: Sequence[Image.Image]) -> Rows:
        inputs = [torch.from_numpy(array).to(self.device) for array in self.prepared.inputs(images)]
        inputs[0] = inputs[0].to(self.dtype)
        if self.kind is DINOV2:
            return _unit(self.network(*inputs).pooler_output)
        pooled = self.network.vision_model(*inputs).pooler_output
        return _unit(self.network.visual_projection(pooled) if self.kind is CLIP else pooled)

    @torch.inference_mode()
    def _embed_texts(self, texts: Sequence[str]) -> Rows:
        assert self.tokens is not None
        tokens: Mapping[str, Any] = self.tokens(
            [self.kind.written(text) for text in texts],
            padding="max_length",
            max_length=self.limit,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens["input_ids"].to(self.device)
        if self.kind is CLIP:
            mask = tokens["attention_mask"].to(self.device)
            pooled = self.network.text_model(input_ids=ids, attention_mask=mask).pooler_output
            return _unit(self.network.text_projection(pooled))
        return _unit(self.network.text_model(input_ids=ids).pooler_output)


def _unit(rows: torch.Tensor) -> Rows:
    values = rows.float()
    return np.asarray((values / values.norm(dim=-1, keepdim=True)).cpu().numpy(), np.float32)
