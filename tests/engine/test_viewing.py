"""Views: which draw sees which, and the latents of each."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from helpers.captions import SIDE, Painter, stored
from helpers.refusals import refused
from PIL import Image

from bench.contracts.dataset import Sample
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import Latents
from bench.engine.images import CheckedViews, preprocess, squash, view_of_draw, view_seed
from bench.engine.scoring import LATENT
from bench.errors import PluginError
from bench.inputs.draws import generate_noise
from bench.inputs.view_assignment import assign_evenly
from bench_plugins.views.pictures import Posterior


@pytest.mark.parametrize(
    "pictures", [[], [Image.new("L", (4, 4))], [Image.new("L", (0, 0))] * 2, [1, 2]]
)
def test_views_are_as_many_pictures_as_declared(pictures: list[Any]) -> None:
    class Views:
        count = 2

        def of(self, image: Image.Image, seed: int) -> list[Any]:
            return pictures

    with refused("views 'x'", "of()", kind=PluginError):
        CheckedViews(Views(), "views 'x'").of(Image.new("L", (4, 4)), 0, "a")


def test_draws_of_one_level_see_one_view() -> None:
    chosen = view_of_draw(41, 4, per_level=2)
    assert len(chosen) == 41 and (chosen[0:40:2] == chosen[1:40:2]).all()
    assert set(chosen) == {0, 1, 2, 3}
    assert np.array_equal(view_of_draw(500, 8), assign_evenly(500, 8))


def test_a_seed_is_the_run_s_and_the_image_s() -> None:
    seeds = {view_seed(seed, name) for seed in (0, 1) for name in ("a", "b", "a\0001")}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)


class WithPosterior(Painter):
    def posterior(self, images: Any) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.encode_images(images)
        return mean, torch.full_like(mean, 0.5)


@pytest.mark.parametrize("returned", [lambda m: m, lambda m: [m, m], lambda m: (m, m, m)])
def test_a_posterior_that_is_no_pair_is_refused(returned: Callable[[Any], Any]) -> None:
    model: Any = WithPosterior(None, device="cpu", dtype="float32")
    model.posterior = lambda images: returned(model.encode_images(images))
    with refused("posterior()", kind=PluginError):
        CheckedDenoiser(model, "painter").posterior([Image.new("RGB", (SIDE, SIDE))])


@pytest.mark.parametrize("squashed", [False, True])
def test_an_image_is_squashed_or_its_middle_is_cut_out(squashed: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, 2 * SIDE, 3), np.uint8)
    image, file = Image.fromarray(pixels), BytesIO()
    image.save(file, "PNG")
    backbone = CheckedDenoiser(Painter(None, device="cpu", dtype="float32"), "painter")
    latents = Latents(backbone, 7, squashed=squashed)
    [(_, found)] = latents.of([Sample("x", 0, {"bytes": file.getvalue(), "path": None})])
    seen = squash(image, SIDE) if squashed else image
    torch.testing.assert_close(list(found), [preprocess([seen], SIDE)])


def test_views_of_the_posterior_are_samples_of_it() -> None:
    backbone = CheckedDenoiser(WithPosterior(None, device="cpu", dtype="float32"), "painter")
    views = CheckedViews(Posterior(3), "posterior")
    text = "a red 3 left of a blue 5"
    latents = Latents(backbone, 7, views=views)
    [(_, found)] = latents.of([Sample("x", 0, stored(text))])
    assert not isinstance(found, str) and found[0].shape == (3, 3, SIDE, SIDE)
    assert Painter.images == 1  # the image is encoded once
    from bench.inputs.pixels import decode

    mean = preprocess([decode(stored(text))], SIDE)[0]
    for view, name in enumerate(("x", "x\0view 1", "x\0view 2")):
        eps = torch.from_numpy(generate_noise(7, LATENT, (3, SIDE, SIDE), name))
        torch.testing.assert_close(found[0][view], mean + 0.5 * eps)
