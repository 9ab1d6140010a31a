"""CLIP and SigLIP: pictures against prompts by the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from bench.contracts.backbone import Classifier
from bench.errors import UserError
from bench.inputs.weights import Weights
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
        self._texts = lru_cache(1)(self.encoder.texts)  # those of a run are the same for all images
        self._means = lru_cache(1)(self._mean_texts)

    @classmethod
    def _read(cls, weights: Weights | None, device: str, dtype: str) -> Encoder:
        if weights is None:
            raise UserError(
                "Name the weights with --weights: a folder or a Hub id. This backbone has none."
            )
        return Encoder(weights, kind_of(weights, cls.KINDS), device, dtype)

    @classmethod
    def check_weights(cls, weights: Weights | None, *, dtype: str, **parameters: Any) -> None:
        """Refuse weights that would not load; reads no tensor."""
        cls._read(weights, "cpu", dtype)

    @classmethod
    def memory(cls, weights: Weights, dtype: str, **parameters: Any) -> int:
        """Return the bytes of the model, both of its towers."""
        return cls._read(weights, "cpu", dtype).size

    @classmethod
    def token_counts(cls, weights: Weights | None, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return the tokens of each text and the most there may be; reads only the tokenizer."""
        encoder = cls._read(weights, "cpu", "float32")
        return encoder.counts(texts), encoder.limit

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
        """Return logits, float32 [images, texts]: the model's own `logits_per_image`."""
        return self._logits(images, self._texts(tuple(texts)))

    def score_sets(self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]) -> Rows:
        """Return logits, float32 [images, sets].

        A set's embedding is the mean of its texts' embeddings of length 1, made length 1 again.
        """
        return self._logits(images, self._means(tuple(map(tuple, sets))))

    def _mean_texts(self, sets: Sequence[Sequence[str]]) -> Rows:
        rows = self.encoder.texts([text for texts in sets for text in texts])
        ends = np.cumsum([0, *map(len, sets)])
        means = np.stack([rows[start:end].mean(axis=0) for start, end in pairwise(ends)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.asarray(means, np.float32)

    def _logits(self, images: Sequence[Image.Image], texts: Rows) -> Rows:
        scale, bias = self.encoder.scale_and_bias
        return np.asarray(self.encoder.images(images) @ texts.T * scale + bias, np.float32)


class Siglip(Clip):
    """SigLIP: a sigmoid for each pair, and a logit with a bias; texts without punctuation."""

    KINDS = (SIGLIP,)


class Siglip2(Clip):
    """SigLIP 2; texts in lower case.

    Of a fixed resolution it is in SigLIP's classes; NaFlex, which keeps a picture's aspect ratio,
    in classes of its own.
    """

    KINDS = (SIGLIP2, NAFLEX)
