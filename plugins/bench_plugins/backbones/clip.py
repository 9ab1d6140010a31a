"""Classifier backbones CLIP and SigLIP: score images against texts by cosine similarity."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from typing_extensions import override

from bench.contracts.backbone import Classifier
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import named_weights
from bench_plugins.backbones._encoders import (
    CLIP,
    NAFLEX,
    SIGLIP,
    SIGLIP2,
    Encoder,
    Kind,
    Rows,
    kind_of,
)


class Clip(Classifier):
    """OpenAI's CLIP, and OpenCLIP's weights in transformers' layout."""

    KINDS: ClassVar[tuple[Kind, ...]] = (CLIP,)

    def __init__(self, weights: Weights | None, *, device: str, dtype: str) -> None:
        self.encoder = self._read(weights, device, dtype)
        # All images of a run are scored against the same texts.
        self._embed_texts = lru_cache(1)(self.encoder.texts)
        self._embed_sets = lru_cache(1)(self._mean_embeddings)

    @classmethod
    def _read(cls, weights: Weights | None, device: str, dtype: str) -> Encoder:
        named = named_weights(weights)
        return Encoder(named, kind_of(named, cls.KINDS), device, dtype)

    @classmethod
    @override
    def check_weights(cls, weights: Weights | None, *, dtype: str, **parameters: Any) -> None:
        cls._read(weights, "cpu", dtype)

    @classmethod
    @override
    def memory(cls, weights: Weights, dtype: str, **parameters: Any) -> int:
        return cls._read(weights, "cpu", dtype).size

    @classmethod
    def evaluation_flops(
        cls, weights: Weights | None, resolution: int | None = None
    ) -> float | None:
        """Return the operations of encoding one image; those of texts are shared by all images."""
        return cls._read(weights, "cpu", "float32").operations()

    @classmethod
    @override
    def token_counts(cls, weights: Weights | None, texts: Sequence[str]) -> tuple[list[int], int]:
        encoder = cls._read(weights, "cpu", "float32")
        return encoder.counts(texts), encoder.limit

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
        """Return logits, float32 [images, texts], equal to the model's `logits_per_image`."""
        return self._logits(images, self._embed_texts(tuple(texts)))

    def score_sets(self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]) -> Rows:
        """Return logits, float32 [images, sets].

        A set's embedding is the mean of its texts' embeddings, which have length 1, normalised to
        length 1.
        """
        return self._logits(images, self._embed_sets(tuple(map(tuple, sets))))

    def _mean_embeddings(self, sets: Sequence[Sequence[str]]) -> Rows:
        rows = self.encoder.texts([text for texts in sets for text in texts])
        ends = np.cumsum([0, *map(len, sets)])
        means = np.stack([rows[start:end].mean(axis=0) for start, end in pairwise(ends)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.asarray(means, np.float32)

    def _logits(self, images: Sequence[Image.Image], texts: Rows) -> Rows:
        scale, bias = self.encoder.scale_and_bias
        return np.asarray(self.encoder.images(images) @ texts.T * scale + bias, np.float32)


class Siglip(Clip):
    """SigLIP, whose logits have a bias. Texts are lowercased and lose their punctuation."""

    KINDS = (SIGLIP,)


class Siglip2(Clip):
    """SigLIP 2, with a fixed resolution or NaFlex, which keeps an image's aspect ratio.

    Texts are lowercased.
    """

    KINDS = (SIGLIP2, NAFLEX)
