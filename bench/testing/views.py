"""The contract of views, as tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.engine.images import CheckedViews
from bench.testing.classifiers import pictures

SEEDS = ("one", "another")  # ids of images, from which seeds are derived


class ViewsContract:
    """Tests of views; subclass it and define `make`."""

    def make(self) -> Any:
        """Return the views."""
        raise NotImplementedError

    @pytest.fixture
    def views(self) -> CheckedViews:
        """The views, validated as in a run."""
        views = CheckedViews(self.make(), "the views")
        if views.of_latents:
            pytest.skip("the views are samples of the latent, which the toolkit draws")
        return views

    def test_an_image_has_its_views(self, views: CheckedViews) -> None:
        """An image of any size and mode has `count` views, none of them empty."""
        for image in pictures():
            assert all(min(view.size) > 0 for view in views.of(image, 0, SEEDS[0]))

    def test_the_seed_decides(self, views: CheckedViews) -> None:
        """The same seed gives the same views, also after views with another seed."""
        image = pictures()[0]
        first = views.of(image, 0, SEEDS[0])
        views.of(image, 0, SEEDS[1])
        for view, again in zip(first, views.of(image, 0, SEEDS[0]), strict=True):
            assert np.array_equal(np.asarray(view), np.asarray(again))

    def test_the_image_stays_as_it_is(self, views: CheckedViews) -> None:
        """Making views does not change the image."""
        for image in pictures():
            copy: Image.Image = image.copy()
            views.of(image, 0, SEEDS[0])
            assert np.array_equal(np.asarray(image), np.asarray(copy))
