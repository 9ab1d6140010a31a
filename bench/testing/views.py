"""What every kind of views must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.engine.images import CheckedViews
from bench.testing.classifiers import pictures

SEEDS = ("one", "another")  # names of images, from which seeds are made


class ViewsContract:
    """Subclass it, and say how your views are made."""

    def make(self) -> Any:
        """Return the views."""
        raise NotImplementedError

    @pytest.fixture
    def views(self) -> CheckedViews:
        """The views, checked as in a run."""
        views = CheckedViews(self.make(), "the views")
        if views.of_latents:
            pytest.skip("they are samples of the latent, which the toolkit makes")
        return views

    def test_an_image_has_its_views(self, views: CheckedViews) -> None:
        """As many pictures as `count` says, each with pixels, of images of any size and mode."""
        for image in pictures():
            assert all(min(view.size) > 0 for view in views.of(image, 0, SEEDS[0]))

    def test_the_seed_decides(self, views: CheckedViews) -> None:
        """The same seed gives the same pictures, whatever was asked for in between."""
        image = pictures()[0]
        first = views.of(image, 0, SEEDS[0])
        views.of(image, 0, SEEDS[1])
        for view, again in zip(first, views.of(image, 0, SEEDS[0]), strict=True):
            assert np.array_equal(np.asarray(view), np.asarray(again))

    def test_the_image_stays_as_it_is(self, views: CheckedViews) -> None:
        """Other views and other strategies see the same image."""
        for image in pictures():
            kept: Image.Image = image.copy()
            views.of(image, 0, SEEDS[0])
            assert np.array_equal(np.asarray(image), np.asarray(kept))
