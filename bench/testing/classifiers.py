"""The contract of classifier backbones, as tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

TEXTS = ("a photo of a cat", "a photo of a dog", "a drawing of an owl in a tree")


def pictures(side: int = 48) -> list[Image.Image]:
    """Return five random images of different sizes and modes (RGB and greyscale)."""
    rng = np.random.default_rng(0)
    shapes = [(side, side, 3), (side // 2, side, 3), (2 * side, side, 3), (side, side), (7, 9, 3)]
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


class BackboneContract:
    """What the tests of all kinds of backbones have in common."""

    texts: Sequence[str] = TEXTS  # three prompts of different lengths and meanings
    tolerance = 1e-4  # allowed change of a number with its batch, relative to the largest number

    def make(self) -> Any:
        """Return the backbone, on the CPU and in float32."""
        raise NotImplementedError

    def make_checked(self) -> Any:
        """Return the backbone with its output validated as in a run."""
        return self.make()

    @pytest.fixture
    def backbone(self) -> Any:
        """The backbone, made once per test class."""
        return once(type(self), self.make_checked)


class ClassifierContract(BackboneContract):
    """Tests of a classifier; subclass it and define `make`. `tolerance` is absolute, too."""

    def test_logits_are_one_row_per_image(self, backbone: Any) -> None:
        """Logits are finite floats [images, texts], for images of any size and mode."""
        logits = np.asarray(backbone.score(pictures(), list(self.texts)))
        assert logits.shape == (5, len(self.texts))
        assert logits.dtype.kind == "f" and np.isfinite(logits).all()
        single = np.asarray(backbone.score(pictures()[:1], list(self.texts)[:1]))
        assert single.shape == (1, 1)

    def test_neighbours_change_nothing(self, backbone: Any) -> None:
        """The logit of an image and a text does not depend on the other images and texts."""
        texts = list(self.texts)
        together = np.asarray(backbone.score(pictures(), texts))
        alone = np.concatenate([backbone.score([image], texts) for image in pictures()])
        np.testing.assert_allclose(alone, together, rtol=self.tolerance, atol=self.tolerance)
        flipped = np.asarray(backbone.score(pictures()[::-1], texts[::-1]))
        np.testing.assert_allclose(
            flipped[::-1, ::-1], together, rtol=self.tolerance, atol=self.tolerance
        )

    def test_the_same_again(self, backbone: Any) -> None:
        """Scores are deterministic."""
        first, second = (backbone.score(pictures(), list(self.texts)) for _ in range(2))
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6)


T = TypeVar("T")


def once(owner: type, make: Callable[[], T]) -> T:
    """Return the result of `make`, called once per test class: loading a model takes seconds."""
    if "_made" not in vars(owner):
        owner._made = make()  # type: ignore[attr-defined]
    made: T = vars(owner)["_made"]
    return made
