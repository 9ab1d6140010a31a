"""The contracts of backbones, that is, classifiers, likelihoods and denoisers, as tests."""

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from bench.contracts.backbone import Denoiser
from bench.contracts.decision import REDUCTIONS
from bench.contracts.strategy import Floats32, Ints
from bench.discovery.targets import offers, with_defaults
from bench.engine.denoiser import CheckedDenoiser, with_gradients
from bench.engine.direct import CheckedClassifier, CheckedLikelihood, draw_numbers
from bench.engine.scoring import mixed, times
from bench.engine.trees import Tree, check_alike, grown, leaves, rows
from bench.testing.datasets import Contract, once, pictures

TEXTS = ("a photo of a cat", "a photo of a dog", "a drawing of an owl in a tree")
DENOISER_TEXTS = ("a cat", "a dog", "a drawing of an owl that sits in a tall tree")
DRAWS_OF_CELLS = 2  # of a likelihood
STEP = 1e-2  # of finite differences, as a fraction of the way to another prompt


class BackboneContract(Contract):
    """What the tests of all kinds of backbones have in common.

    `make` returns the backbone, on the CPU and in float32.
    """

    texts: Sequence[str] = TEXTS  # three prompts of different lengths and meanings
    tolerance = 1e-4  # allowed change of a number with its batch, relative to the largest number
    checked: ClassVar[type[Any]]  # validates the output of a backbone as in a run

    @pytest.fixture
    def backbone(self) -> Any:
        """The backbone, validated as in a run, and made once per test class."""
        return once(type(self), lambda: self.checked(self.make(), "the backbone"))


class ClassifierContract(BackboneContract):
    """Tests of a classifier; subclass it and define `make`. `tolerance` is absolute, too."""

    checked = CheckedClassifier

    def test_logits_are_one_row_per_image(self, backbone: Any) -> None:
        """Logits are finite floats [images, texts], for images of any size and mode."""
        assert np.isfinite(backbone.score(pictures(), list(self.texts))).all()
        assert backbone.score(pictures()[:1], list(self.texts)[:1]).shape == (1, 1)

    def test_neighbours_change_nothing(self, backbone: Any) -> None:
        """The logit of an image and a text does not depend on the other images and texts."""
        texts = list(self.texts)
        together = backbone.score(pictures(), texts)
        alone = np.concatenate([backbone.score([image], texts) for image in pictures()])
        np.testing.assert_allclose(alone, together, rtol=self.tolerance, atol=self.tolerance)
        flipped = backbone.score(pictures()[::-1], texts[::-1])
        np.testing.assert_allclose(
            flipped[::-1, ::-1], together, rtol=self.tolerance, atol=self.tolerance
        )

    def test_the_same_again(self, backbone: Any) -> None:
        """Scores are deterministic."""
        first, second = (backbone.score(pictures(), list(self.texts)) for _ in range(2))
        np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6)


class LikelihoodContract(BackboneContract):
    """Tests of a likelihood; subclass it and define `make`."""

    checked = CheckedLikelihood

    def test_its_class_says_how_draws_are_put_together(self, backbone: CheckedLikelihood) -> None:
        """`reduction` is a class attribute, because it is read before the weights are loaded."""
        assert getattr(type(backbone.backbone), "reduction", None) in REDUCTIONS

    def test_errors_are_one_per_cell(self, backbone: CheckedLikelihood) -> None:
        """Errors are finite, for images of any size and mode, and for a single cell."""
        images, texts, draws = self.cells()
        assert np.isfinite(backbone.evaluate(images, texts, draws, DRAWS_OF_CELLS)).all()
        assert len(backbone.evaluate(images[:1], texts[:1], draws[:1], DRAWS_OF_CELLS)) == 1

    def test_neighbours_change_nothing(self, backbone: CheckedLikelihood) -> None:
        """A cell's error does not depend on the other cells of the batch or on their order."""
        images, texts, draws = self.cells()
        together = backbone.evaluate(images, texts, draws, DRAWS_OF_CELLS)
        for index in range(len(texts)):
            cell = slice(index, index + 1)
            alone = backbone.evaluate(images[cell], texts[cell], draws[cell], DRAWS_OF_CELLS)
            self.close(alone, together[cell])
        turned = backbone.evaluate(images[::-1], texts[::-1], draws[::-1], DRAWS_OF_CELLS)
        self.close(turned[::-1], together)

    def test_a_draw_is_its_number_alone(self, backbone: CheckedLikelihood) -> None:
        """Errors are deterministic: the number of a draw determines its noise."""
        cells = self.cells()
        self.close(
            backbone.evaluate(*cells, DRAWS_OF_CELLS), backbone.evaluate(*cells, DRAWS_OF_CELLS)
        )

    def test_the_text_counts(self, backbone: CheckedLikelihood) -> None:
        """Every text differs from the first in its error on some draw of some image."""
        errors = backbone.evaluate(*self.cells(), DRAWS_OF_CELLS).reshape(-1, len(self.texts))
        for other in range(1, len(self.texts)):
            assert (errors[:, other] != errors[:, 0]).any()

    def cells(self) -> tuple[list[Image.Image], list[str], Ints]:
        """Return images, texts and draws: all images, two draws each, all texts of each."""
        cells = list(product(pictures(), draw_numbers(1, DRAWS_OF_CELLS), self.texts))
        images, draws, texts = zip(*cells, strict=True)
        return list(images), list(texts), np.array(draws)

    def close(self, actual: Floats32, expected: Floats32) -> None:
        """Check that errors are equal up to rounding."""
        scale = self.tolerance * float(np.abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=self.tolerance, atol=scale)


class DenoiserContract(BackboneContract):
    """Tests of a denoiser; subclass it and define `make`."""

    checked = CheckedDenoiser
    texts: Sequence[str] = DENOISER_TEXTS
    tolerance = 1e-5
    slope_tolerance = 0.05  # allowed relative deviation of a gradient from a finite difference

    @pytest.fixture
    def images(self, backbone: CheckedDenoiser) -> list[Image.Image]:
        """Images of several sizes and modes, one of them at the model's resolution."""
        return [*pictures(backbone.resolution), Image.new("RGB", (backbone.resolution,) * 2)]

    @torch.inference_mode()
    def test_images_become_latents(
        self, backbone: CheckedDenoiser, images: list[Image.Image]
    ) -> None:
        """Latents are finite and do not depend on the batch, for images of any size and mode."""
        together = backbone.encode_images(images)
        assert torch.isfinite(together).all()
        alone = torch.cat([backbone.encode_images([image]) for image in images])
        self.close(alone, together)
        self.close(backbone.encode_images(backbone.preprocess(images)), together)

    @torch.inference_mode()
    def test_prompts_become_rows(self, backbone: CheckedDenoiser) -> None:
        """The conditioning has one row per prompt, in order, which does not depend on the batch."""
        texts = list(self.texts)
        together = leaves(backbone.encode_prompts(texts))
        flipped = leaves(backbone.encode_prompts(texts[::-1]))
        for path, leaf in together.items():
            self.close(flipped[path].flip(0), leaf, path)
        for number, text in enumerate(texts):
            alone = leaves(backbone.encode_prompts([text]))
            assert alone.keys() == together.keys()
            for path, leaf in together.items():
                self.close(alone[path], leaf[number : number + 1], path)

    @torch.inference_mode()
    def test_predictions_do_not_depend_on_the_batch(self, backbone: CheckedDenoiser) -> None:
        """Predictions from the first to the last level are finite; arguments are not changed."""
        x_t, time, conditioning = self.cells(backbone)
        copies = [x.clone() for x in (x_t, time, *leaves(conditioning).values())]
        together = backbone.denoise(x_t, time, conditioning)
        assert torch.isfinite(together.float()).all()
        for before, after in zip(copies, (x_t, time, *leaves(conditioning).values()), strict=True):
            assert torch.equal(before, after), "denoise() changed its arguments"
        for cell in range(len(x_t)):
            alone = slice(cell, cell + 1)
            prediction = backbone.denoise(x_t[alone], time[alone], rows(conditioning, alone))
            self.close(prediction, together[alone])

    @torch.inference_mode()
    def test_the_prompt_counts(self, backbone: CheckedDenoiser) -> None:
        """Different prompts give different predictions of the same x_t."""
        x_t, time, _ = self.cells(backbone)
        conditioning = backbone.encode_prompts(list(self.texts))
        count = len(self.texts)
        same = x_t[:1].expand(count, -1, -1, -1), time[:1].expand(count)
        first, *others = backbone.denoise(*same, conditioning)
        assert not any(torch.equal(other, first) for other in others)

    @torch.inference_mode()
    def test_nan_stays_where_it_is(self, backbone: CheckedDenoiser) -> None:
        """A latent with NaN spoils its own prediction, and no other in the batch."""
        x_t, time, conditioning = self.cells(backbone)
        clean = backbone.denoise(x_t, time, conditioning)
        broken = x_t.clone()
        broken[0] = float("nan")
        predictions = backbone.denoise(broken, time, conditioning)
        assert not torch.isfinite(predictions[0].float()).all()
        self.close(predictions[1:], clean[1:])

    @torch.inference_mode()
    def test_the_null_is_a_prompt_like_others(self, backbone: CheckedDenoiser) -> None:
        """The null conditioning has the same leaves as prompts have, and `denoise` accepts it."""
        if not offers(backbone.backbone, Denoiser.encode_null):
            pytest.skip("the denoiser has no null conditioning")
        null = backbone.encode_null()
        check_alike(leaves(null), leaves(backbone.encode_prompts(self.texts)))
        x_t, time, _ = self.cells(backbone)
        backbone.denoise(x_t[:1], time[:1], null)

    def test_gradients_agree_with_finite_differences(self, backbone: CheckedDenoiser) -> None:
        """Gradients of an error towards another prompt agree with finite differences."""
        if with_defaults(backbone.backbone, Denoiser).can_linearise is not True:
            pytest.skip("the denoiser does not set `can_linearise`")
        with torch.inference_mode():
            x_t, time, _ = self.cells(backbone)
            eps = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(2))
            conditioning = backbone.encode_prompts(list(self.texts))
            parts = leaves(conditioning)
            first = {path: leaf[:1] for path, leaf in parts.items()}
            floating = {path: leaf for path, leaf in parts.items() if leaf.is_floating_point()}
            toward = {path: leaf[1:2] - leaf[:1] for path, leaf in floating.items()}
        middle = slice(len(x_t) // 2, len(x_t) // 2 + 1)

        def error(prompt: dict[str, torch.Tensor]) -> torch.Tensor:
            prediction = backbone.denoise(x_t[middle].clone(), time[middle].clone(), grown(prompt))
            return (prediction.float() - eps[middle].clone()).square().sum()

        def moved(fraction: float) -> dict[str, torch.Tensor]:
            """Return the first prompt's leaves, moved a fraction of the way to the second."""
            prompt = {path: leaf.clone() for path, leaf in first.items()}
            return prompt | {path: prompt[path] + fraction * way for path, way in toward.items()}

        with with_gradients(backbone):
            prompt = moved(0.0)
            inputs = [prompt[path].requires_grad_() for path in toward]
            gradients = torch.autograd.grad(
                error(prompt), inputs, allow_unused=True, materialize_grads=True
            )
        slope = sum(
            float((gradient.double() * way.double()).sum())
            for gradient, way in zip(gradients, toward.values(), strict=True)
        )
        with torch.no_grad():
            difference = float(error(moved(STEP)) - error(moved(-STEP))) / (2 * STEP)
            scale = float(error(moved(0.0)))
        assert slope == pytest.approx(difference, rel=self.slope_tolerance, abs=1e-5 * scale / STEP)

    def cells(self, backbone: CheckedDenoiser) -> tuple[torch.Tensor, torch.Tensor, Tree]:
        """Return x_t, time and conditioning of six random cells at levels from first to last."""
        levels = backbone.levels
        chosen = np.linspace(0, len(levels) - 1, 6).astype(int)
        generator = torch.Generator().manual_seed(1)
        x_0, eps = torch.randn(2, 6, *backbone.latent_shape, generator=generator)
        alpha = torch.from_numpy(levels.alpha[chosen]).float()
        sigma = torch.from_numpy(levels.sigma[chosen]).float()
        conditioning = backbone.encode_prompts(list(self.texts))
        prompt = torch.arange(6) % len(self.texts)
        return mixed(x_0, eps, alpha, sigma), times(levels, chosen), rows(conditioning, prompt)

    def close(self, actual: torch.Tensor, expected: torch.Tensor, what: str = "") -> None:
        """Check that two tensors are equal up to rounding; messages begin with `what`."""
        rtol = self.tolerance if expected.is_floating_point() else 0.0
        atol = rtol * float(expected.float().abs().max())
        torch.testing.assert_close(
            actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what} {text}".strip()
        )
