"""The analytic denoiser of many classes: its closed forms, and the errors that a run records."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from glyph_networks import ANGLES, LEVELS
from glyphs import SIZE, Glyphs, distinct_glyphs
from models import Analytic, Draws, Model, register_analytic
from PIL import Image as Pictures

import bench
from bench.inputs.draws import DrawPlan
from bench.recordings.recording import open_recording

CLASSES, SPREAD, DRAWS = 60, 0.7, 40


@pytest.fixture(scope="module")
def glyphs() -> Glyphs:
    return distinct_glyphs(2 * CLASSES).first(CLASSES)


@pytest.fixture(scope="module")
def analytic(glyphs: Glyphs) -> Analytic:
    return Analytic(glyphs.pictures(), SPREAD)


def a_picture(glyphs: Glyphs, row: int = 7) -> torch.Tensor:
    noise = np.random.default_rng(row).standard_normal(SIZE * SIZE)
    return torch.from_numpy(glyphs.pictures()[row] + SPREAD * noise).float()


def test_closed_forms_are_those_of_the_denoiser(glyphs: Glyphs, analytic: Analytic) -> None:
    x_0, draws = a_picture(glyphs), Draws.of(0, DRAWS)
    errors = analytic.errors(x_0, draws)
    np.testing.assert_allclose(errors, Model.errors(analytic, x_0, draws), rtol=1e-4)
    many = Draws.of(1, 20_000)
    gaps = analytic.errors(x_0, many) - analytic.errors(x_0, many)[7]
    mean, variance = analytic.gaps(x_0, 7, many.angles.double().numpy())
    others = np.arange(CLASSES) != 7
    standard_error = np.sqrt(variance / 20_000)
    assert (abs(gaps.mean(axis=1) - mean)[others] < 5 * standard_error[others]).all()
    _, b = analytic.factors(many.angles.double().numpy())
    away = np.square(glyphs.pictures() - x_0.numpy()).sum(axis=1)
    within = gaps - np.outer(away - away[7], b**2) / 256
    np.testing.assert_allclose(within.var(axis=1)[others], variance[others], rtol=0.1)


@pytest.mark.long
def test_the_engine_records_the_errors_of_the_closed_form(
    glyphs: Glyphs, analytic: Analytic, tmp_path: Path
) -> None:
    register_analytic()
    pixels = (np.stack([a_picture(glyphs, row).numpy() for row in (1, 30)]) + 1).clip(0, 2) * 127.5
    images = [Pictures.fromarray(p.reshape(SIZE, SIZE).round().astype(np.uint8)) for p in pixels]
    features = {"image": Image(), "label": ClassLabel(names=glyphs.names)}
    data = Dataset.from_dict(
        {"image": images, "label": [1, 30], "sample_id": ["a", "b"]},
        features=Features(**features, sample_id=Value("string")),
    )
    run = bench.run(
        data, backbone="analytic", strategy="full", params={"draws": 6}, template="{class}",
        results=str(tmp_path), save_errors=True, seed=3,
    )  # fmt: skip
    noise = torch.from_numpy(DrawPlan().make_noise(3, 6, (1, SIZE, SIZE))).flatten(1)
    angles = torch.tensor(ANGLES[DrawPlan().assign_levels(6, LEVELS)]).float()
    recording = open_recording(tmp_path / run.run_id)
    for name, image in zip("ab", images, strict=True):
        x_0 = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).flatten()
        expected = analytic.errors(x_0, Draws(noise, angles))
        np.testing.assert_allclose(recording.errors(name), expected, rtol=1e-4)
