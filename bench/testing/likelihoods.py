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
from bench.testing.classifiers import TEXTS, once, pictures


class LikelihoodContract:
    """Subclass it, and say how your likelihood is made."""

    texts: Sequence[str] = TEXTS  # three texts of unlike lengths that say different things
    tolerance = 1e-4  # change of an error with its batch, relative to the largest error

    def make(self) -> Any:
        """Return the likelihood."""
        raise NotImplementedError

    @pytest.fixture
    def backbone(self) -> Any:
        """The likelihood, made once for the class; shapes and dtypes are checked as in a run."""
        return once(type(self), lambda: CheckedLikelihood(self.make(), "the likelihood"))

    def test_its_class_says_how_draws_are_put_together(self, backbone: CheckedLikelihood) -> None:
        """The class declares its reduction, which is read before the weights are."""
        assert getattr(type(backbone.backbone), "reduction", None) in REDUCTIONS

    def test_errors_are_one_per_cell(self, backbone: CheckedLikelihood) -> None:
        """Errors are finite, for images of any size and mode, and for a single cell."""
        images, texts, draws = self.cells()
        assert np.isfinite(backbone.evaluate(images, texts, draws)).all()
        assert len(backbone.evaluate(images[:1], texts[:1], draws[:1])) == 1

    def test_neighbours_change_nothing(self, backbone: CheckedLikelihood) -> None:
        """A cell's error does not depend on the batch or on its place there."""
        images, texts, draws = self.cells()
        together = backbone.evaluate(images, texts, draws)
        for place in range(len(texts)):
            cell = slice(place, place + 1)
            self.close(backbone.evaluate(images[cell], texts[cell], draws[cell]), together[cell])
        self.close(backbone.evaluate(images[::-1], texts[::-1], draws[::-1])[::-1], together)

    def test_a_draw_is_its_number_alone(self, backbone: CheckedLikelihood) -> None:
        """The same number gives the same error; the texts of an image see the same draw."""
        cells = self.cells()
        self.close(backbone.evaluate(*cells), backbone.evaluate(*cells))

    def test_the_text_counts(self, backbone: CheckedLikelihood) -> None:
        """Texts give different errors on some draw of some image."""
        errors = backbone.evaluate(*self.cells()).reshape(-1, len(self.texts))
        for other in range(1, len(self.texts)):
            assert (errors[:, other] != errors[:, 0]).any()

    def cells(self) -> tuple[list[Image.Image], list[str], NDArray[np.int64]]:
        """Return every image with every text on two draws, the texts of an image together."""
        images, numbers = pictures(), draw_numbers(1, 2)
        every = [(i, d, t) for i in images for d in numbers for t in self.texts]
        chosen, draws, texts = zip(*every, strict=True)
        return list(chosen), list(texts), np.array(draws)

    def close(self, actual: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
        """Check that errors are equal, but for rounding."""
        scale = self.tolerance * float(np.abs(wanted).max())
        np.testing.assert_allclose(actual, wanted, rtol=self.tolerance, atol=scale)
