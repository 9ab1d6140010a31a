"""Baselines that do not look at the picture: the rows of chance."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.backbone import Classifier
from bench.inputs.weights import Weights


class Random(Classifier):
    """Guesses: uniform logits, derived from the picture's pixels, the text and the seed.

    So the same picture gets the same guess in any order and batch.
    """

    def __init__(self, weights: Weights | None, *, device: str, dtype: str, seed: int = 0) -> None:
        self.seed = seed

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits in [0, 1), float32 [images, texts]."""
        return np.array([[self._guess(i, text) for text in texts] for i in images], np.float32)

    def _guess(self, image: Image.Image, text: str) -> float:
        head = f"{self.seed} {image.mode} {image.size} {text} ".encode()
        number = hashlib.blake2b(head + image.tobytes(), digest_size=3).digest()
        return int.from_bytes(number, "big") / 2**24  # exact in float32


class Majority(Classifier):
    """Always the class with the most images in the split that it was fitted on."""

    def __init__(self, weights: Weights | None, *, device: str, dtype: str) -> None:
        self.shares: dict[str, float] = {}

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Count the labels; looks at no picture."""
        counts = Counter(labels)
        self.shares = {text: count / len(labels) for text, count in counts.items()}
        text, count = counts.most_common(1)[0]
        return {"images": len(labels), "majority": text, "share": count / len(labels)}

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the log of each class's share, float32 [images, texts], alike for all images."""
        logs = np.log([self.shares[text] for text in texts])
        return np.tile(logs.astype(np.float32), (len(images), 1))
