"""torchvision's datasets, on tiny copies in its own layout."""

from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.data_sources import torchvision_of_arrays, write
from helpers.given import make_folder
from helpers.refusals import refused

torchvision = pytest.importorskip("torchvision")

from bench.inputs.rows import as_dataset  # noqa: E402
from bench_plugins.datasets.vision import TORCHVISION_SPLITS, TorchVision  # noqa: E402


def load(name: str, root: Path, split: str | None = None) -> Any:
    return as_dataset(TorchVision(name).load(split, str(root)))


def test_every_name_is_a_class_of_torchvision() -> None:
    for name, splits in TORCHVISION_SPLITS.items():
        assert hasattr(torchvision.datasets, name) and splits


# name → texts of its own layout, and the class of each picture
FILES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "FGVCAircraft": (
        {
            "fgvc-aircraft-2013b/data/variants.txt": "707-320\nA300B4\n",
            "fgvc-aircraft-2013b/data/images_variant_test.txt": "1 A300B4\n2 707-320\n",
        },
        {
            "fgvc-aircraft-2013b/data/images/1.jpg": "A300B4",
            "fgvc-aircraft-2013b/data/images/2.jpg": "707-320",
        },
    ),
    "OxfordIIITPet": (
        {
            "oxford-iiit-pet/annotations/test.txt": "Abyssinian_1 1 1 1\nbasset_hound_2 2 2 1\n",
            "oxford-iiit-pet/annotations/trimaps/none": "",
        },
        {
            "oxford-iiit-pet/images/Abyssinian_1.jpg": "Abyssinian",
            "oxford-iiit-pet/images/basset_hound_2.jpg": "Basset Hound",
        },
    ),
    "Caltech101": (
        {
            "caltech101/101_ObjectCategories/BACKGROUND_Google/none": "",
            "caltech101/Annotations/none": "",
        },
        {
            "caltech101/101_ObjectCategories/ant/image_0001.jpg": "ant",
            "caltech101/101_ObjectCategories/barrel/image_0001.jpg": "barrel",
        },
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_keep_their_names_and_classes(name: str, tmp_path: Path) -> None:
    """As DTD's, and MNIST's arrays, in `tests/inputs/test_frozen.py`."""
    texts, wanted = FILES[name]
    for file, text in texts.items():
        write(tmp_path / file, text)
    make_folder(tmp_path, *wanted)
    rows = load(name, tmp_path)
    labels = [rows.features["label"].names[label] for label in rows["label"]]
    assert dict(zip(rows["sample_id"], labels, strict=True)) == wanted


def test_numbers_are_named(tmp_path: Path) -> None:
    place = torchvision_of_arrays(tmp_path)["data_dir"]
    assert load("MNIST", Path(place))[0]["image"].tobytes() == bytes(range(28)) * 28
    done = bench("prompts", "torchvision:MNIST", "--data-dir", place, "--json")
    assert [row["class"] for row in done.json][:2] == ["zero", "one"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with refused("torchvision:DTD"):
        load("DTD", tmp_path)
