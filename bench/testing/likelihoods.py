"""The contract of likelihood backbones, as tests."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from bench.contracts.decision import REDUCTIONS
from bench.engine.likelihoods import CheckedLikelihood, draw_numbers
from bench.testing.classifiers import BackboneContract, pictures


class LikelihoodContract(BackboneContract):
    """Tests of a likelihood; subclass it and define `make`."""

    @override
    def make_checked(self) -> CheckedLikelihood:
        return CheckedLikelihood(self.make(), "the likelihood")

    def test_its_class_says_how_draws_are_put_together(self, backbone: CheckedLikelihood) -> None:
        """`reduction` is a class attribute, because it is read before the weights are loaded."""
        assert getattr(type(backbone.backbone), "reduction", None) in REDUCTIONS

    def test_errors_are_one_per_cell(self, backbone: CheckedLikelihood) -> None:
        """Errors are finite, for images of any size and mode, and for a single cell."""
        images, texts, draws = self.cells()
        assert np.isfinite(backbone.evaluate(images, texts, draws)).all()
        assert len(backbone.evaluate(images[:1], texts[:1], draws[:1])) == 1

    def test_neighbours_change_nothing(self, backbone: CheckedLikelihood) -> None:
        """A cell's error does not depend on the other cells of the batch or on their order."""
        images, texts, draws = self.cells()
        together = backbone.evaluate(images, texts, draws)
        for index in range(len(texts)):
            cell = slice(index, index + 1)
            self.close(backbone.evaluate(images[cell], texts[cell], draws[cell]), together[cell])
        self.close(backbone.evaluate(images[::-1], texts[::-1], draws[::-1])[::-1], together)

    def test_a_draw_is_its_number_alone(self, backbone: CheckedLikelihood) -> None:
        """Errors are deterministic: the number of a draw determines its noise."""
        cells = self.cells()
        self.close(backbone.evaluate(*cells), backbone.evaluate(*cells))

    def test_the_text_counts(self, backbone: CheckedLikelihood) -> None:
        """Every text differs from the first in its error on some draw of some image."""
        errors = backbone.evaluate(*self.cells()).reshape(-1, len(self.texts))
        for other in range(1, len(self.texts)):
            assert (errors[:, other] != errors[:, 0]).any()

    def cells(self) -> tuple[list[Image.Image], list[str], NDArray[np.int64]]:
        """Return images, texts and draws: all images, two draws each, all texts of each."""
        cells = list(product(pictures(), draw_numbers(1, 2), self.texts))
        images, draws, texts = zip(*cells, strict=True)
        return list(images), list(texts), np.array(draws)

    def close(self, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Check that errors are equal up to rounding."""
        scale = self.tolerance * float(np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=self.tolerance, atol=scale)
