"""Chance rows and classifiers that learn: by hand, by the contract, and as runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench import load_run
from bench.store.folder import read_manifest
from bench.store.writing import RunFolder
from bench.testing import ClassifierContract
from bench.testing.backbones import TEXTS
from bench.testing.datasets import pictures
from bench_plugins.backbones.learned import (
    Gaussian,
    LinearProbe,
    Majority,
    NearestMean,
    Random,
)

MADE: dict[str, Any] = {"device": "cpu", "dtype": "float32"}


class TestRandom(ClassifierContract):
    def make(self) -> Random:
        return Random(None, **MADE)


@pytest.mark.parametrize("kind", [Majority, NearestMean, Gaussian, LinearProbe])
class TestLearned(ClassifierContract):
    @pytest.fixture
    def backbone(self, kind: Any) -> Any:
        made = kind(None, **MADE)
        made.fit(iter(pictures() + pictures(40)), [*TEXTS, *TEXTS, *TEXTS, TEXTS[1]])
        return made


def test_guesses_are_uniform_and_move_with_the_seed() -> None:
    texts = [str(n) for n in range(500)]
    one, other = (Random(None, **MADE, seed=n).score(pictures(), texts) for n in (0, 1))
    assert one.min() >= 0 and one.max() < 1 and abs(one.mean() - 0.5) < 0.05
    assert np.abs(np.corrcoef(np.stack([*one, *other])) - np.eye(10)).max() < 0.2


def flat(*shades: int) -> list[Image.Image]:
    return [Image.new("L", (20, 30), shade) for shade in shades]


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from((1e-3, 1.0, 1e3)))
def test_the_matrix_product_decides_as_the_distances_do(seed: int, n: int, offset: float) -> None:
    """Far from the origin too, where a product is inexact, and among means that are equal."""
    rng = np.random.default_rng(seed)
    model = NearestMean(None, **MADE)
    model.texts = [f"class {label:02}" for label in range(n)]
    model.means = offset + rng.normal(size=(n, 12)).round(1)
    model.means[n // 2] = model.means[0]
    rows = np.float32(offset) + rng.normal(size=(7, 12)).astype(np.float32)
    rows[0] = model.means[0]
    model.features = lambda images: rows[: len(images)]
    differences = model.means - rows.astype(np.float64)[:, None]
    expected = -(differences**2).mean(axis=2).astype(np.float32)
    for images in (1, 7):
        scores = model.score([None] * images, model.texts)  # type: ignore[list-item]  # unread
        assert (scores.argmax(axis=1) == expected[:images].argmax(axis=1)).all()
        assert scores == pytest.approx(expected[:images], rel=1e-5, abs=1e-9 * offset**2)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(3, 60), st.integers(1, 12))
def test_the_gaussian_is_that_of_the_formulas(seed: int, n: int, images: int, width: int) -> None:
    """Distances by the pooled covariance, shrunk by Ledoit and Wolf's (2004) lemma 3.2 on."""
    rng = np.random.default_rng(seed)
    labels = [*range(n), *rng.integers(0, n, n + images)]
    spread: Any = rng.normal(size=(len(labels), width)) @ rng.normal(size=(width, width))
    rows = (spread + 3).astype(np.float32)
    model = Gaussian(None, **MADE)
    places: Any = range(len(rows))
    model.features = lambda chosen: rows[list(chosen)]
    texts = [f"class {label}" for label in range(n)]
    facts = model.fit(iter(places), [texts[label] for label in labels])
    exact, index = rows.astype(np.float64), np.array(labels)
    means = np.stack([exact[index == label].mean(axis=0) for label in range(n)])
    within = exact - means[index]
    count, covariance = len(within), within.T @ within / len(within)
    scale = np.trace(covariance) / width
    most = ((covariance - scale * np.eye(width)) ** 2).sum()
    noise = sum(((np.outer(row, row) - covariance) ** 2).sum() for row in within) / count**2
    share = min(noise, most) / most if width > 1 else 0.0
    shrunk = (1 - share) * covariance + share * scale * np.eye(width)
    far = [[(r - m) @ np.linalg.solve(shrunk, r - m) / 2 for m in means] for r in exact]
    shift = np.array(far).min(axis=1, keepdims=True)
    scores = model.score(places, texts)
    expected = shift - np.array(far)
    got = scores - scores.max(axis=1, keepdims=True)
    assert facts["shrinkage"] == pytest.approx(share, abs=1e-6)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(scores).max()))


def test_the_nearest_mean_is_that_of_the_features() -> None:
    made = NearestMean(None, **MADE)
    assert made.fit(flat(0, 100, 255), ["dark", "dark", "light"])["images"] == 3
    distance = (np.array([60, 60]) - np.array([255, 50])) / 127.5
    np.testing.assert_allclose(made.score(flat(60), ["light", "dark"])[0], -(distance**2), 1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_scikit_learn_s_regression_on_standardised_features(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    index = np.arange(60) % classes
    shown = [Image.fromarray(rng.integers(80 * n, 80 * n + 90, (4, 4), np.uint8)) for n in index]
    made = LinearProbe(None, **MADE, resolution=4)
    said = made.fit(iter(shown), [f"class {n}" for n in index])
    found = made.features(shown).astype(np.float64)
    values = (found - found.mean(axis=0)) / found.std(axis=0)
    model = LogisticRegression(C=said["C"], max_iter=1000, tol=1e-8).fit(values, index)
    ours = made.score(shown, [f"class {n}" for n in range(classes)]).astype(np.float64)
    ours = np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, model.predict_proba(values), atol=2e-3)
    assert said["folds"] == 5 and said["accuracy_by_C"][f"{said['C']:g}"] == max(
        said["accuracy_by_C"].values()
    )


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """A folder with splits: three of the test images are in `more` as well."""
    for split, shades in {"test": (10, 200), "train": (30, 180), "more": (10, 220)}.items():
        for shade, name in zip(shades, ("dark", "light"), strict=True):
            folder = tmp_path / "shades" / split / name
            folder.mkdir(parents=True)
            for n in range(4 if split == "more" else 3):
                Image.new("RGB", (9, 8), (shade + 2 * n, shade, shade)).save(folder / f"{n}.png")
    return tmp_path / "shades"


def learn(data: Path, *options: str, backbone: str = "linear-probe") -> Any:
    results = str(data.parent / "results")
    return bench("run", f"{data}/", "--backbone", backbone, *options, "--results", results)


def test_a_run_says_what_it_learned_from(splits: Path) -> None:
    done = learn(splits, "--json")
    said = json.loads(done.out)
    assert said["metrics"]["accuracy"] == 1
    assert said["backbone"]["trained_on"] == "shades/train"
    assert said["fitted"]["C"] == 1e-4 and said["fitted"]["images"] == 6
    manifest = json.loads((Path(said["results_dir"]) / "manifest.json").read_text())
    learned_from = manifest["identity"]["learned_from"]
    assert learned_from["split"] == "train" and learned_from["images"] == 6
    other = learn(splits, "--fit-split", "more", "--json")
    assert "3 of 8 images of split 'more' are scored too" in other.err
    assert other.json["fitted"]["images"] == 5 and other.json["run_id"] != said["run_id"]


def test_what_was_fitted_survives_a_run_that_ends_before_its_summary(
    splits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = learn(splits, "--json").json
    folder = Path(wanted["results_dir"])
    shutil.rmtree(folder)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "finish", stop)
        assert learn(splits).code == 130
    assert not (folder / "summary.json").exists()
    assert load_run(folder)["fitted"] == wanted["fitted"]  # of what is decided so far
    monkeypatch.setattr(LinearProbe, "fit", stop)  # nothing is left to score, or to fit
    again = learn(splits, "--json")
    assert again.code == 0 and again.json["fitted"] == wanted["fitted"]
    assert read_manifest(folder).fitted is not None
    assert "Fitted: images=6" in bench("show", folder).out


@pytest.mark.parametrize(
    ("options", "backbone", "message"),
    [
        (["--fit-split", "test"], "majority", "the split that is scored"),
        (["--fit-split", "nowhere"], "majority", "has no split 'nowhere'"),
        (["--template", "a {class}"], "nearest-mean", "reads no prompts"),
        (["--fit-split", "train"], "random", "is not trainable"),
        (["--set", "features=clip"], "linear-probe", "'clip' is not a known model"),
        (["--weights", "WEIGHTS"], "linear-probe", "pixels needs no weights"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    options: list[str], backbone: str, message: str, splits: Path, pipelines: dict[str, Path]
) -> None:
    given = [str(pipelines["sd15"]) if o == "WEIGHTS" else o for o in options]
    done = learn(splits, *given, backbone=backbone)
    error = done.err.splitlines()[-1]
    assert done.code == 2 and error.startswith("Error: ") and message in error
    assert not (splits.parent / "results").exists()
