"""UC Merced: membership by pixels, on the real images where they are at hand."""

import csv
import io
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.places import UCMERCED
from PIL import Image

import bench as toolkit
from bench.discovery.loading import load_plugins
from bench_plugins.datasets.ucmerced import assign_splits

real = pytest.mark.skipif(
    not UCMERCED.is_dir(), reason=f"no UC Merced at {UCMERCED}; set BENCH_TEST_UCMERCED"
)


def classes_of(dataset: str) -> tuple[str, ...]:
    classes = load_plugins().datasets.get(dataset).classes
    assert classes is not None
    return tuple(classes)


def test_the_list_holds_all_of_it() -> None:
    text = (files("bench_plugins.datasets") / "ucmerced_split.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2099 == len({row["pixel_sha256"] for row in rows})
    tests = Counter(row["label"] for row in rows if row["split"] == "test")
    assert len(tests) == 21 and set(tests.values()) == {20}
    spellings = [name.replace(" ", "") for name in classes_of("ucmerced")]
    assert sorted(tests) == spellings


@pytest.mark.long
@real
def test_real_images_are_looked_up() -> None:
    test = toolkit.load_dataset("ucmerced", data_dir=str(UCMERCED))
    train = toolkit.load_dataset("ucmerced", split="train", data_dir=str(UCMERCED))
    assert (len(test), len(train)) == (210, 1680)
    assert set(Counter(test["label"]).values()) == {10}
    assert not set(test["sample_id"]) & set(train["sample_id"])
    # The one exact duplicate: same pixels, two ids.
    twins = [sample_id for sample_id in train["sample_id"] if sample_id.endswith("-2")]
    assert len(twins) == 1 and twins[0][:-2] in train["sample_id"]
    validation = toolkit.load_dataset("ucmerced", split="validation", data_dir=str(UCMERCED))
    assert set(validation["sample_id"]) < set(train["sample_id"])
    assert np.bincount(validation["label"]).tolist() == [8] * 21
    assert len({image.size for image in test["image"]}) > 1  # not all are 256 pixels square


@pytest.mark.long
@real
def test_an_image_folder_gives_the_same_samples(tmp_path: Path) -> None:
    """The original archive's layout, made from some of the images, in another encoding."""
    test = toolkit.load_dataset("ucmerced", data_dir=str(UCMERCED))
    names = test.features["label"].names
    for name in names:
        (tmp_path / "UCMerced_LandUse" / "Images" / name).mkdir(parents=True)
    for number, row in enumerate(test):
        if number % 5 == 0:
            folder = tmp_path / "UCMerced_LandUse" / "Images" / names[row["label"]]
            row["image"].save(folder / f"{number}.tif")
    found = toolkit.load_dataset("ucmerced", data_dir=str(tmp_path))
    assert set(found["sample_id"]) == set(test["sample_id"][::5])


def test_unknown_images_get_a_seeded_stratified_split(recwarn: pytest.WarningsRecorder) -> None:
    hashes = [f"{i:016x}" for i in range(100)]
    labels = [i % 2 for i in range(100)]
    splits = assign_splits(hashes, labels)
    assert "100 of 100 images are not in UC Merced's list" in str(recwarn.pop().message)
    for label in (0, 1):
        assert Counter(s for s, of in zip(splits, labels, strict=True) if of == label) == {
            "test": 10,
            "train": 40,
        }
    turned = assign_splits(hashes[::-1], labels[::-1])
    assert turned[::-1] == splits


@pytest.mark.long
def test_strange_images_are_warned_of_once(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in classes_of("ucmerced"):
        folder = tmp_path / "data" / name.replace(" ", "")
        folder.mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    done = bench(
        *("run", "ucmerced", "--data-dir", tmp_path / "data", "--backbone", "tiny-digits"),
        *("--strategy", "full", "--set", "draws=1", "--results", tmp_path / "r", "--json"),
    )
    assert done.code == 0 and done.err.count("105 of 105 images are not in UC Merced's list") == 1
    assert done.json["dataset"]["n_total"] == 21  # a fifth of five, in each class


def test_another_dataset_is_refused(image_folder: Path) -> None:
    assert bench("run", "ucmerced", "--data-dir", image_folder).refuses("21 classes")


def test_without_the_hub_the_message_says_what_to_do(tmp_path: Path) -> None:
    weights = load_plugins().backbones.get("sd2").weights
    done = bench("run", "digits", "--backbone", "sd2", "--results", tmp_path)
    assert done.refuses(weights, "hf download", "--weights FOLDER")
