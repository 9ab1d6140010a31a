"""What every likelihood backbone must keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.decision import REDUCTIONS
from bench.engine.likelihoods import CheckedLikelihood, draw_numbers
from bench.testing.classifiers import TEXTS, pictures
from bench.testing.making import once


class LikelihoodContract:
    """Subclass it, and say how your likelihood is made.

    Attributes:
        texts: three texts of unlike lengths that say different things.
        tolerance: how far errors may move with the batch, relative to the largest.
    """

    texts: Sequence[str] = TEXTS
    tolerance = 1e-4

    def make(self) -> Any:
        """Return the likelihood."""
        raise NotImplementedError

    @pytest.fixture
    def backbone(self) -> Any:
        """The likelihood, made once for the class; shapes and dtypes are checked as in a run."""
        return once(type(self), lambda: CheckedLikelihood(self.make(), "the likelihood"))

    def test_its_class_says_how_draws_are_put_together(self, backbone: CheckedLikelihood) -> None:
        """It is read before the weights are."""
        assert getattr(type(backbone.backbone), "reduction", None) in REDUCTIONS

    def test_errors_are_one_per_cell(self, backbone: CheckedLikelihood) -> None:
        """Finite, for images of any size and mode, and of one cell too."""
        assert np.isfinite(self.errors(backbone, *self.cells())).all()
        assert len(self.errors(backbone, *(column[:1] for column in self.cells()))) == 1

    def test_neighbours_change_nothing(self, backbone: CheckedLikelihood) -> None:
        """A cell's error does not depend on the batch or on its place there."""
        images, texts, draws = self.cells()
        together = self.errors(backbone, images, texts, draws)
        for place in range(len(texts)):
            one = slice(place, place + 1)
            self.close(self.errors(backbone, images[one], texts[one], draws[one]), together[one])
        self.close(self.errors(backbone, images[::-1], texts[::-1], draws[::-1])[::-1], together)

    def test_a_draw_is_its_number_alone(self, backbone: CheckedLikelihood) -> None:
        """The same number gives the same error; the texts of an image see the same draw."""
        cells = self.cells()
        self.close(self.errors(backbone, *cells), self.errors(backbone, *cells))

    def test_the_text_counts(self, backbone: CheckedLikelihood) -> None:
        """Texts give different errors on some draw of some image."""
        images, texts, draws = self.cells()
        found = self.errors(backbone, images, texts, draws).reshape(-1, len(self.texts))
        for other in range(1, len(self.texts)):
            assert (found[:, other] != found[:, 0]).any()

    def cells(self) -> tuple[list[Image.Image], list[str], NDArray[np.int64]]:
        """Return every image with every text on two draws, the texts of an image together."""
        images, numbers = pictures(), draw_numbers(1, 2)
        every = [(i, d, t) for i in images for d in numbers for t in self.texts]
        chosen, draws, texts = zip(*every, strict=True)
        return list(chosen), list(texts), np.array(draws)

    def errors(
        self, backbone: CheckedLikelihood, images: Any, texts: Any, draws: Any
    ) -> NDArray[np.float32]:
        """Return the errors of some cells."""
        return backbone.evaluate(images, texts, draws)

    def close(self, found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
        """Check that errors are equal, but for rounding."""
        scale = self.tolerance * float(np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=self.tolerance, atol=scale)
