"""Every dataset that we declare: complete and readable; tiny copies in the original layouts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.given import make_folder
from helpers.places import CALTECH101

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.inputs.class_names import check_names
from bench.inputs.data import load_split
from bench.inputs.declared import find_source, indices_of
from bench.inputs.listed import line_pattern
from bench.inputs.prompts import from_template
from bench.inputs.templates import from_templates
from bench_plugins.datasets.hub import parse_source

DECLARED = [spec for spec in load_plugins().datasets if spec.source]


@pytest.mark.parametrize("spec", DECLARED, ids=lambda spec: spec.name)
def test_a_declaration_is_complete(spec: DatasetSpec) -> None:
    assert spec.summary and spec.citation and spec.homepage.startswith("http")
    assert spec.split in spec.splits and spec.classes
    check_names(spec.classes, spec.name)
    assert all(not re.fullmatch(r"n\d{8}|[a-z]+(_[a-z]+)+", name) for name in spec.classes)
    assert not any("  " in name or name != name.strip() for name in spec.classes)
    assert set(spec.phrases) in (set(), set(spec.classes))
    assert len(set(spec.found)) == len(spec.found)
    prompts = from_template(spec.template, spec.classes, spec.phrases)
    assert len(set(prompts.texts)) == len(spec.classes)
    for templates in spec.templates.values():
        from_templates(templates, spec.classes, spec.phrases)
    reader, source = find_source(str(spec.source))
    assert reader.name == "hf" and parse_source(source).first is None
    assert spec.unverified  # the Hub cannot be asked here
    for spelt in filter(None, (spec.found, spec.classes)):
        assert indices_of(spelt, spec, "x") == list(range(len(spec.classes)))
    if "lists" in spec.layout:
        line_pattern(spec.layout["line"])
        assert set(spec.layout["lists"]) <= set(spec.splits)
    if "reader" in spec.layout:
        assert find_source(spec.layout["reader"])[0].scheme and spec.layout["marker"]


def test_there_are_as_many_as_the_listing_says() -> None:
    rows = {row["name"]: row for row in bench("list", "datasets", "--json").json}
    assert len(DECLARED) >= 25 and all(rows[spec.name]["unverified"] for spec in DECLARED)
    assert not rows["digits"]["unverified"]
    assert "(unverified)" in bench("list", "datasets").out


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def pets(root: Path) -> dict[str, str]:
    make_folder(root / "images", "Abyssinian_1.jpg", "yorkshire_terrier_2.jpg")
    text = "# breeds\nAbyssinian_1 1 1 1\nyorkshire_terrier_2 37 2 25\n"
    write(root / "annotations/test.txt", text)
    first, last = "images/Abyssinian_1.jpg", "images/yorkshire_terrier_2.jpg"
    return {first: "Abyssinian", last: "Yorkshire Terrier"}


def food(root: Path) -> dict[str, str]:
    make_folder(root / "images", "waffles/7.jpg", "apple_pie/8.jpg")
    write(root / "meta/test.txt", "waffles/7\napple_pie/8\n")
    return {"images/waffles/7.jpg": "waffles", "images/apple_pie/8.jpg": "apple pie"}


def aircraft(root: Path) -> dict[str, str]:
    make_folder(root / "data/images", "1.jpg", "2.jpg")
    write(root / "data/images_variant_test.txt", "1 Boeing 717\n2 F-16A/B\n")
    return {"data/images/1.jpg": "Boeing 717", "data/images/2.jpg": "F-16A/B"}


def textures(root: Path) -> dict[str, str]:
    make_folder(root / "images", "polka-dotted/p_1.jpg", "banded/b_1.jpg")
    write(root / "labels/test1.txt", "polka-dotted/p_1.jpg\nbanded/b_1.jpg\n")
    return {"images/polka-dotted/p_1.jpg": "polka-dotted", "images/banded/b_1.jpg": "banded"}


def scenes(root: Path) -> dict[str, str]:
    make_folder(root / "SUN397/a", "abbey/1.jpg", "apse/indoor/2.jpg")
    write(root / "Testing_01.txt", "/a/abbey/1.jpg\n/a/apse/indoor/2.jpg\n")
    return {"SUN397/a/abbey/1.jpg": "abbey", "SUN397/a/apse/indoor/2.jpg": "apse indoor"}


def objects(root: Path) -> dict[str, str]:
    make_folder(root / "101_ObjectCategories", "Faces_easy/1.jpg", "yin_yang/1.jpg")
    return {"Faces_easy/1.jpg": "centered face", "yin_yang/1.jpg": "yin and yang symbol"}


def wordnet(root: Path) -> dict[str, str]:
    make_folder(root / "imagenet-r", "n01443537/1.jpg", "n02123045/2.jpg")
    return {"n01443537/1.jpg": "goldfish", "n02123045/2.jpg": "tabby cat"}


def numbers(root: Path) -> dict[str, str]:
    place = root / "imagenetv2-matched-frequency-format-val"
    make_folder(place, "0/1.jpeg", "10/1.jpeg", "2/1.jpeg")
    return {"0/1.jpeg": "tench", "10/1.jpeg": "brambling", "2/1.jpeg": "great white shark"}


def land(root: Path) -> dict[str, str]:
    make_folder(root / "AID", "BareLand/1.jpg", "Viaduct/1.jpg")
    return {"BareLand/1.jpg": "bare land", "Viaduct/1.jpg": "viaduct"}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("pets", pets),
        ("food", food),
        ("aircraft", aircraft),
        ("dtd", textures),
        ("sun397", scenes),
        ("caltech101", objects),
        ("imagenet-r", wordnet),
        ("imagenet-v2", numbers),
        ("aid", land),
    ],
)
def test_the_original_download_is_read(name: str, make: Any, tmp_path: Path) -> None:
    wanted = make(tmp_path)
    spec = load_plugins().datasets.get(name)
    split = load_split(spec, None, str(tmp_path))
    found = {
        i: split.classes[label] for i, label in zip(split.sample_ids, split.labels, strict=True)
    }
    assert found == wanted and split.split == spec.split and split.name == name


@pytest.mark.skipif(not CALTECH101.is_dir(), reason=f"no {CALTECH101}")
def test_caltech_is_read_for_real() -> None:
    split = load_split(load_plugins().datasets.get("caltech101"), None, str(CALTECH101))
    assert len(split.classes) == 101 and len(set(split.labels)) == 101
    first = split.sample_ids.index("Faces/image_0001.jpg")
    assert split.classes[split.labels[first]] == "off-center face"
