"""torchvision's datasets, on tiny copies in its own layout."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
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


def aircraft(root: Path) -> list[str]:
    data = root / "fgvc-aircraft-2013b" / "data"
    make_folder(data / "images", "1.jpg", "2.jpg")
    (data / "variants.txt").write_text("707-320\nA300B4\n")
    (data / "images_variant_test.txt").write_text("1 A300B4\n2 707-320\n")
    return ["A300B4", "707-320"]


def pets(root: Path) -> list[str]:
    folder = root / "oxford-iiit-pet"
    make_folder(folder / "images", "Abyssinian_1.jpg", "basset_hound_2.jpg")
    (folder / "annotations/trimaps").mkdir(parents=True)
    text = "Abyssinian_1 1 1 1\nbasset_hound_2 2 2 1\n"
    (folder / "annotations/test.txt").write_text(text)
    return ["Abyssinian", "Basset Hound"]


def textures(root: Path) -> list[str]:
    folder = root / "dtd" / "dtd"
    make_folder(folder / "images", "banded/b_1.jpg", "dotted/d_1.jpg")
    (folder / "labels").mkdir()
    (folder / "labels/test1.txt").write_text("banded/b_1.jpg\ndotted/d_1.jpg\n")
    return ["banded", "dotted"]


def caltech(root: Path) -> list[str]:
    folder = root / "caltech101"
    make_folder(folder / "101_ObjectCategories", "ant/image_0001.jpg", "barrel/image_0001.jpg")
    (folder / "101_ObjectCategories/BACKGROUND_Google").mkdir()
    (folder / "Annotations").mkdir()
    return ["ant", "barrel"]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("FGVCAircraft", aircraft),
        ("OxfordIIITPet", pets),
        ("DTD", textures),
        ("Caltech101", caltech),
    ],
)
def test_files_keep_their_bytes_and_names(name: str, make: Any, tmp_path: Path) -> None:
    labels = make(tmp_path)
    rows = load(name, tmp_path)
    found = [rows.features["label"].names[label] for label in rows["label"]]
    assert found == labels
    for own_id in rows["sample_id"]:
        assert (tmp_path / own_id).is_file()


def test_arrays_become_pictures_of_their_own_pixels(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = bytes(range(28)) * 56
    head = struct.pack(">IIII", 0x803, 2, 28, 28)
    for part in ("t10k", "train"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 2) + b"\3\1")
    rows = load("MNIST", tmp_path)
    assert list(rows["label"]) == [3, 1] and list(rows["sample_id"]) == [
        "test-000000",
        "test-000001",
    ]
    assert rows[0]["image"].tobytes() == pixels[: 28 * 28]
    done = bench("prompts", "torchvision:MNIST", "--data-dir", tmp_path, "--json")
    assert [row["class"] for row in done.json][:2] == ["zero", "one"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with refused("torchvision:DTD"):
        load("DTD", tmp_path)
