"""The analytic denoiser of many classes, the questions made from it, and the strategies on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from glyph_networks import ANGLES, LEVELS
from glyphs import SIZE, Glyphs, distinct_glyphs
from helpers.matrix import matrix
from models import Analytic, Draws, Model, register_analytic
from PIL import Image as Pictures
from report import Played, compare, rows_of
from strategies import Question, Tree, clairvoyant, families, question

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


@pytest.mark.parametrize(("drawn", "least"), matrix([(None, 5000), (600, 400)], [(600, 400)]))
def test_shapes_are_distinct_and_named_once(drawn: int | None, least: int, glyphs: Glyphs) -> None:
    whole = distinct_glyphs(drawn)
    assert len(set(whole.names)) == len(whole) >= least
    assert whole.names[:CLASSES] == glyphs.names
    assert whole.nearest[whole.nearest >= 0.1].size == len(whole) < len(whole.nearest)
    assert glyphs.pictures().shape == (CLASSES, 256) and abs(glyphs.pictures()).max() <= 1


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


def test_the_velocity_is_optimal_and_the_exact_class_the_most_probable(
    glyphs: Glyphs, analytic: Analytic
) -> None:
    rng = np.random.default_rng(0)
    x_0 = torch.from_numpy(glyphs.pictures()[3] + SPREAD * rng.standard_normal((4000, 256))).float()
    eps, angle = torch.from_numpy(rng.standard_normal((4000, 256))).float(), torch.tensor(0.9)
    x_t, target = angle.cos() * x_0 + angle.sin() * eps, angle.cos() * eps - angle.sin() * x_0
    seen = analytic.velocity(x_t, angle.expand(4000), analytic.told[3])
    least = (seen - target).square().mean()
    for factor in (0.97, 1.03):
        assert (factor * (seen - target.mean()) + target.mean() - target).square().mean() > least
    density = [-np.square(a_picture(glyphs).numpy() - mean).sum() for mean in glyphs.pictures()]
    assert analytic.exact(a_picture(glyphs)) == int(np.argmax(density))


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


@pytest.fixture(scope="module")
def asked(glyphs: Glyphs) -> Question:
    groups = [np.arange(40), np.arange(12), np.arange(12, 20)]
    model = Analytic(glyphs.pictures(), SPREAD)
    model.add(groups)
    x_0, draws, rows = a_picture(glyphs), Draws.of(0, DRAWS), np.arange(5, 55)
    errors = model.errors(x_0, draws)
    tree = Tree(groups, CLASSES)
    return question(model, x_0, draws, errors, rows, tree, glyphs.pictures())


def test_every_setting_decides_and_pays_at_most_the_sweep(asked: Question) -> None:
    least = clairvoyant(asked)
    for name, family in families(DRAWS).items():
        for setting in family.values():
            winner, cost = setting(asked)
            assert 0 <= winner < 50 and 0 < cost <= asked.errors.size + asked.group_errors.size
            if name == "race":
                assert winner == asked.sweep and cost >= least


def test_the_comparison_counts_images_on_which_only_one_agrees() -> None:
    same = np.ones((400, 1), dtype=bool)
    fewer = same.copy()
    fewer[:2] = False
    cheap = Played(fewer, same, same, np.full((400, 1), 10.0))
    dear = Played(same, same, same, np.full((400, 1), 40.0))
    ratio, more_lost, less_right = compare(cheap, dear)
    assert ratio == (0.25, 0.25, 0.25)
    assert more_lost[0] == 0.005 and more_lost[2] > 0.01 and less_right[0] == 0
    rows = rows_of(
        "m", "reaches", 9, {("screening", "x"): cheap, ("race", ""): dear},
        {"screening": ["x"], "race": [""]},
    )  # fmt: skip
    assert rows[0].rival == "race" and rows[0].ratio == ratio
