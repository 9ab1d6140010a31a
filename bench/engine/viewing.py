"""Views of images behind the guard, and which view each draw sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from bench.contracts.dataset import Sample
from bench.contracts.views import Views
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import with_defaults
from bench.errors import PluginError
from bench.inputs.draws import Ints
from bench.inputs.turns import in_turn

MOST_VIEWS = 64  # of an image; their latents are in memory while it is under way


class CheckedViews:
    """A plugin's views, checked.

    Args:
        views: made by the plugin.
        who: what a message calls them.

    Attributes:
        count: how many views an image has.
        of_latents: whether they are samples of the latent.

    Raises:
        PluginError: their count makes no sense.
    """

    def __init__(self, views: object, who: str) -> None:
        self.who = who
        self.views: Views = with_defaults(views, Views)
        with guard(who, "reading its count"):
            count: Any = self.views.count
            self.of_latents = self.views.samples_latents is True
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_VIEWS:
            raise PluginError(who, f"its count is {one_line(count)}, not 1 to {MOST_VIEWS}")
        self.count = count

    def of(self, image: Image.Image, seed: int, name: str) -> list[Image.Image]:
        """Return the views of one image.

        Args:
            image: the image.
            seed: of the run.
            name: of the image, which with the seed decides what is random.

        Raises:
            PluginError: they are not as many images.
        """
        if self.of_latents:
            return [image]
        with guard(self.who, "of()"):
            found: Sequence[Any] = self.views.of(image, view_seed(seed, name))
            pictures = list(found)
        if len(pictures) != self.count or not all(isinstance(p, Image.Image) for p in pictures):
            raise PluginError(self.who, f"of() did not return {self.count} images")
        return pictures


def view_seed(seed: int, name: str) -> int:
    """Return the seed of one image's views, below 2**63, from the run's and the image's name."""
    content = f"{seed}\0{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 1


def view_of_draw(n_draws: int, views: int, per_level: int = 1) -> Ints:
    """Return int64 [N], the view of each draw: balanced on every prefix and sub-grid of the draws.

    Args:
        n_draws: N.
        views: how many there are.
        per_level: draws that share a level, and so a view: 2 of a paired plan.
    """
    turns = in_turn(-(-n_draws // per_level), views)
    return np.asarray(np.repeat(turns, per_level)[:n_draws])


def name_of(sample: Sample, number: int) -> str:
    """Return what stands for one image of a sample where something is made for it alone."""
    return f"{sample.sample_id}\0{number}" if number else sample.sample_id
