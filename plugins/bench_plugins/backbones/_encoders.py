"""Embed images and texts with CLIP, SigLIP and DINOv2, and cache the embeddings on disk."""

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
from transformers import CLIPModel, Dinov2Model, Siglip2Model, SiglipModel

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import HERE, check_headers, load_model
from bench_plugins.backbones._components import build_on_meta
from bench_plugins.backbones._configs import check_class, is_whole
from bench_plugins.backbones._counting import counted_operations, size
from bench_plugins.backbones._embedding_cache import EmbeddingCache, cache_key, image_key
from bench_plugins.backbones._preprocessing import (
    Patching,
    Preprocessing,
    read_patching,
    read_preprocessing,
)
from bench_plugins.backbones._tokenizers import clip_tokenizer, siglip_tokenizer


@dataclass(frozen=True)
class Kind:
    """An encoder architecture, with how its texts are prepared.

    `load_tokenizer` gets the weights, the maximum length and the number of token embeddings; it is
    None if no texts are embedded. `clean` prepares a text for the tokenizer.
    """

    model_type: str
    model: Any
    load_tokenizer: Callable[[Weights, int, int], Any] | None = None
    clean: Callable[[str], str] = str


def canonical(text: str) -> str:
    """Return a text in SigLIP's training format: lower case, no punctuation, single spaces."""
    words = text.translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", words).strip().lower()


CLIP = Kind("clip", CLIPModel, lambda weights, *sizes: clip_tokenizer(weights, HERE, *sizes))
SIGLIP = Kind("siglip", SiglipModel, siglip_tokenizer, canonical)
# SigLIP 2 keeps punctuation (Tschannen et al., 2025).
SIGLIP2 = Kind("siglip", SiglipModel, siglip_tokenizer, str.lower)
# SigLIP 2 for images of any aspect ratio and resolution has its own classes in transformers.
NAFLEX = Kind("siglip2", Siglip2Model, siglip_tokenizer, str.lower)
DINOV2 = Kind("dinov2", Dinov2Model)
ENCODER_KINDS = (CLIP, SIGLIP, NAFLEX, DINOV2)


def kind_of(weights: Weights, kinds: Sequence[Kind] = ENCODER_KINDS) -> Kind:
    """Return the kind of encoder in a folder. Raises UserError if it is not one of `kinds`."""
    config = weights.read("config.json")
    types = [kind.model_type for kind in kinds]
    check_class(weights, "config.json", config, "model_type", types)
    return kinds[types.index(config["model_type"])]


EMBEDDING_VERSION = 1  # increase it if a change of the code changes embeddings
ENCODER_BATCH = 64  # texts

Rows = NDArray[np.float32]


class Encoder:
    """Image and text embeddings of a model, cached on disk.

    All files are validated at once; UserError is raised if they are missing, invalid or of another
    kind of model. The network is loaded if an embedding is not cached. `size` is the number of
    bytes of its parameters, and `tokens` the tokenizer, or None if the model does not embed texts.
    """

    def __init__(self, weights: Weights, kind: Kind, device: str, dtype: str) -> None:
        self.weights, self.kind = weights, kind
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        empty: Any = build_on_meta(weights, HERE, kind.model)
        check_headers(weights, HERE, empty.to(self.dtype))
        self.size = size(empty)
        self.config: Any = empty.config
        self.preprocessing = self._read_preprocessing()
        self.tokens = None
        if kind.load_tokenizer is not None:
            vocabulary: int = self.config.text_config.vocab_size
            self.tokens = kind.load_tokenizer(weights, self.limit, vocabulary)
        clean = getattr(kind.clean, "__name__", "")
        self.cache = EmbeddingCache(
            f"{kind.model_type} {clean} {EMBEDDING_VERSION} {weights.fingerprint} {dtype}",
            self.width,
        )

    def _read_preprocessing(self) -> Preprocessing | Patching:
        if self.kind is NAFLEX:
            return read_patching(self.weights, self.config.vision_config.patch_size)
        if self.kind is DINOV2:  # accepts any size: it interpolates its position embeddings
            return read_preprocessing(self.weights, None)
        side = self.config.vision_config.image_size
        return read_preprocessing(self.weights, side if is_whole(side) else None)

    @property
    def width(self) -> int:
        """Number of dimensions of an embedding."""
        if self.kind is CLIP:
            return int(self.config.projection_dim)
        return int((self.config if self.kind is DINOV2 else self.config.vision_config).hidden_size)

    @property
    def limit(self) -> int:
        """Maximum number of tokens of a text."""
        return int(self.config.text_config.max_position_embeddings)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, with special tokens."""
        assert self.tokens is not None
        cleaned = [self.kind.clean(text) for text in texts]
        return [len(ids) for ids in self.tokens(cleaned)["input_ids"]] if cleaned else []

    def operations(self) -> float | None:
        """Return the floating-point operations of the embedding of one image.

        None for NaFlex, whose network reads the numbers of patches, which meta tensors have not.
        """
        if self.kind is NAFLEX:
            return None
        empty: Any = build_on_meta(self.weights, HERE, self.kind.model)
        (pixels,) = self.preprocessing.inputs([Image.new("RGB", (64, 64))])
        inputs = torch.from_numpy(pixels).to("meta")
        return counted_operations(lambda: empty.vision_model(inputs))

    @cached_property
    def network(self) -> Any:
        """The network. Reading it loads it."""
        return load_model(self.weights, HERE, self.kind.model, self.dtype, self.device)

    def images(self, images: Sequence[Image.Image]) -> Rows:
        """Return the images' embeddings, normalised to length 1, float32 [n, D]."""
        keys = [image_key(image) for image in images]

        def compute(indices: Sequence[int]) -> Rows:
            return self._embed_images([images[index] for index in indices])

        return self.cache.rows(keys, compute)

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return the texts' embeddings, normalised to length 1, float32 [n, D]."""
        keys = [cache_key("text", text.encode()) for text in texts]

        def compute(indices: Sequence[int]) -> Rows:
            batches = [
                [texts[index] for index in indices[start : start + ENCODER_BATCH]]
                for start in range(0, len(indices), ENCODER_BATCH)
            ]
            return np.concatenate([self._embed_texts(batch) for batch in batches])

        return self.cache.rows(keys, compute)

    @cached_property
    def scale_and_bias(self) -> tuple[float, float]:
        """Scale and bias that turn a cosine similarity into a logit."""

        def compute(indices: Sequence[int]) -> Rows:
            scale = self.network.logit_scale.float().exp().item()
            bias = getattr(self.network, "logit_bias", torch.zeros(1)).float().item()
            return np.array([[scale, bias] + [0] * (self.width - 2)], np.float32)

        scale, bias, *_ = self.cache.rows([cache_key("scale and bias", b"")], compute)[0].tolist()
        return scale, bias

    @torch.inference_mode()
    def _embed_images(self, images: Sequence[Image.Image]) -> Rows:
        arrays = self.preprocessing.inputs(images)
        inputs = [torch.from_numpy(array).to(self.device) for array in arrays]
        inputs[0] = inputs[0].to(self.dtype)
        if self.kind is DINOV2:
            return _unit(self.network(*inputs).pooler_output)
        pooled = self.network.vision_model(*inputs).pooler_output
        return _unit(self.network.visual_projection(pooled) if self.kind is CLIP else pooled)

    @torch.inference_mode()
    def _embed_texts(self, texts: Sequence[str]) -> Rows:
        assert self.tokens is not None
        tokens: Mapping[str, Any] = self.tokens(
            [self.kind.clean(text) for text in texts],
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
    """Return rows normalised to length 1, float32 [n, D]."""
    values = rows.float()
    return np.asarray((values / values.norm(dim=-1, keepdim=True)).cpu().numpy(), np.float32)
