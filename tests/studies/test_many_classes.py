"""The analytic denoiser of many classes, the questions made from it, and the strategies on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from glyph_networks import ANGLES, LEVELS, GlyphNet, Kind, composed, tokens_of
from glyphs import SIZE, Glyphs, distinct_glyphs
from helpers.matrix import matrix
from models import Analytic, Draws, Model, register_analytic
from PIL import Image as Pictures
from report import Played, compare, rows_of
from strategies import Question, Tree, clairvoyant, families, question

import bench
from bench.inputs.draws import DrawPlan
from bench.recordings.recording import open_recording
from bench_plugins.strategies.race import Race

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


def test_first_order_misses_what_is_quadratic(glyphs: Glyphs, analytic: Analytic) -> None:
    x_0, draws, rows = a_picture(glyphs), Draws.of(0, 4), np.arange(CLASSES)
    kept = np.array([3, 7, 20])
    first = analytic.first_order(x_0, draws, rows, kept)
    _, b = analytic.factors(draws.angles.double().numpy())
    away = np.square(glyphs.pictures() - glyphs.pictures()[kept].mean(axis=0)).mean(axis=1)
    np.testing.assert_allclose(analytic.errors(x_0, draws) - first, np.outer(away, b**2), atol=2e-4)


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


def test_a_tree_of_a_subset_has_the_groups_that_split_it(asked: Question) -> None:
    assert len(asked.parents) == 50 + 3
    assert asked.parents[50:].tolist() == [-1, 50, 50]
    assert asked.parents[:50].tolist() == [51] * 7 + [52] * 8 + [50] * 20 + [-1] * 15
    nodes, parents = Tree([np.arange(9), np.arange(3)], 9).of(np.arange(3))
    assert not len(nodes) and (parents == -1).all()


def test_every_setting_decides_and_pays_at_most_the_sweep(asked: Question) -> None:
    least = clairvoyant(asked)
    for name, family in families(DRAWS).items():
        for setting in family.values():
            winner, cost = setting(asked)
            assert 0 <= winner < 50 and 0 < cost <= asked.errors.size + asked.group_errors.size
            if name == "race":
                assert winner == asked.sweep and cost >= least


def test_a_screen_that_keeps_all_is_a_race(asked: Question) -> None:
    from strategies import plain, screened

    race = Race(first=2, delta=0.005, draws=DRAWS)
    winner, cost = screened(1e9, 1, race)(asked)
    assert (winner, cost - 8) == plain(race)(asked)


@pytest.mark.parametrize("kind", ["table", "pooled", "cross"])
def test_a_network_serves_all_classes_at_once_as_one_by_one(kind: Kind) -> None:
    torch.manual_seed(0)
    network = GlyphNet(kind, 9).eval()
    tokens = torch.randint(9, (5,) if kind == "table" else (5, 10))
    with torch.no_grad():
        told = network.encode(tokens)
        x_t, angle = torch.randn(1, 256), torch.tensor([0.8])
        whole = network(x_t, angle, told)
        rows = network(x_t.expand(5, -1), angle.expand(5), told)
    torch.testing.assert_close(whole, rows, rtol=1e-4, atol=1e-5)


def test_held_out_names_are_composed_of_words_that_were_seen(glyphs: Glyphs) -> None:
    names = distinct_glyphs(600).first(300).names
    out = composed(names, np.random.default_rng(0))
    seen = {
        word for name, held in zip(names, out, strict=True) for word in name.split() if not held
    }
    assert 0 < out.sum() <= sum(" WITH " in name for name in names) // 5
    assert all(set(names[row].split()) <= seen for row in np.flatnonzero(out))
    assert tokens_of(names).shape == (300, 10)


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
