"""Baseline classifiers that ignore the image content."""

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
    """Uniform random guesses.

    Logits are derived from a hash of the image's pixels, the text and the seed, so they do not
    depend on the order of images or the batch size.
    """

    def __init__(self, weights: Weights | None, *, device: str, dtype: str, seed: int = 0) -> None:
        self.seed = seed

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits in [0, 1), float32 [images, texts]."""
        return np.array(
            [[self._guess(image, text) for text in texts] for image in images], np.float32
        )

    def _guess(self, image: Image.Image, text: str) -> float:
        head = f"{self.seed} {image.mode} {image.size} {text} ".encode()
        number = hashlib.blake2b(head + image.tobytes(), digest_size=3).digest()
        return int.from_bytes(number, "big") / 2**24  # exact in float32


class Majority(Classifier):
    """Always predicts the most frequent class of the split that it was fitted on."""

    def __init__(self, weights: Weights | None, *, device: str, dtype: str) -> None:
        self.frequencies: dict[str, float] = {}

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Count the labels. The images are not read."""
        counts = Counter(labels)
        self.frequencies = {text: count / len(labels) for text, count in counts.items()}
        text, count = counts.most_common(1)[0]
        return {"images": len(labels), "majority": text, "share": count / len(labels)}

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return log class frequencies, float32 [images, texts], the same for all images."""
        logs = np.log([self.frequencies[text] for text in texts])
        return np.tile(logs.astype(np.float32), (len(images), 1))
