"""Every dataset that we declare: complete and readable; tiny copies in the original layouts."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.command import bench
from helpers.data_sources import (
    items,
    items_of_parquet,
    items_of_paths,
    listed,
    others_left_out,
    tabled,
    write,
)
from helpers.given import make_folder
from helpers.places import CALTECH101
from helpers.refusals import refused

from bench import load_dataset
from bench.contracts.specs import DatasetSpec
from bench.discovery.declaration_checks import DOWNLOAD
from bench.discovery.declared import load_spec
from bench.discovery.loading import load_plugins
from bench.inputs.class_names import check_names, find_indices
from bench.inputs.data import DataSource, find_source, load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.prompts import from_template, from_templates
from bench.inputs.split import Split
from bench_plugins.datasets._arrow import choose_columns
from bench_plugins.datasets._declared import compile_line
from bench_plugins.datasets.hub import parse_source

DECLARED = [spec for spec in load_plugins().datasets if spec.source]


@pytest.mark.parametrize("spec", DECLARED, ids=lambda spec: spec.name)
def test_a_declaration_is_complete(spec: DatasetSpec) -> None:
    assert spec.summary and spec.citation and spec.homepage.startswith("http")
    assert spec.split in spec.splits and spec.unverified
    if spec.source == DOWNLOAD:
        assert spec.layout or {"file", "files"} & set(spec.item)
    else:
        reader, source = find_source(str(spec.source))
        assert reader.name == "hf" and parse_source(source).first is None
    if spec.items:
        assert spec.item["images"] and spec.item["texts"]
        return
    assert spec.classes
    check_names(spec.classes, spec.name)
    assert all(not re.fullmatch(r"n\d{8}|[a-z]+(_[a-z]+)+", name) for name in spec.classes)
    assert not any("  " in name or name != name.strip() for name in spec.classes)
    assert set(spec.phrases) in (set(), set(spec.classes))
    assert len(set(spec.found)) == len(spec.found)
    prompts = from_template(spec.template, spec.classes, spec.phrases)
    assert len(set(prompts.texts)) == len(spec.classes)
    for templates in spec.templates.values():
        from_templates(templates, spec.classes, spec.phrases)
    for spelt in filter(None, (spec.found, spec.classes)):
        assert find_indices(spelt, spec, "x") == list(range(len(spec.classes)))
    if "lists" in spec.layout:
        compile_line(spec.layout["line"])
        assert set(spec.layout["lists"]) <= set(spec.splits)
    if "reader" in spec.layout:
        assert find_source(spec.layout["reader"])[0].scheme and spec.layout["marker"]


def test_there_are_as_many_as_the_listing_says() -> None:
    rows = {row["name"]: row for row in bench("list", "datasets", "--json").json}
    assert len(DECLARED) >= 25 and all(rows[spec.name]["unverified"] for spec in DECLARED)
    assert not rows["digits"]["unverified"]
    assert "(unverified)" in bench("list", "datasets").out


# Name → texts beside the images, where the images are, and their classes by id.
ORIGINALS: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "pets": (
        {"annotations/test.txt": "# all\nAbyssinian_1 1 1 1\nyorkshire_terrier_2 37 2 25\n"},
        "",
        {
            "images/Abyssinian_1.jpg": "Abyssinian",
            "images/yorkshire_terrier_2.jpg": "Yorkshire Terrier",
        },
    ),
    "food": (
        {"meta/test.txt": "waffles/7\napple_pie/8\n"},
        "",
        {"images/waffles/7.jpg": "waffles", "images/apple_pie/8.jpg": "apple pie"},
    ),
    "aircraft": (
        {"data/images_variant_test.txt": "1 Boeing 717\n2 F-16A/B\n"},
        "",
        {"data/images/1.jpg": "Boeing 717", "data/images/2.jpg": "F-16A/B"},
    ),
    "dtd": (
        {"labels/test1.txt": "polka-dotted/p_1.jpg\nbanded/b_1.jpg\n"},
        "",
        {"images/polka-dotted/p_1.jpg": "polka-dotted", "images/banded/b_1.jpg": "banded"},
    ),
    "sun397": (
        {"Testing_01.txt": "/a/abbey/1.jpg\n/a/apse/indoor/2.jpg\n"},
        "",
        {"SUN397/a/abbey/1.jpg": "abbey", "SUN397/a/apse/indoor/2.jpg": "apse indoor"},
    ),
    "caltech101": (
        {},
        "101_ObjectCategories",
        {"Faces_easy/1.jpg": "centered face", "yin_yang/1.jpg": "yin and yang symbol"},
    ),
    "imagenet-r": (
        {},
        "imagenet-r",
        {"n01443537/1.jpg": "goldfish", "n02123045/2.jpg": "tabby cat"},
    ),
    "imagenet-v2": (
        {},
        "imagenetv2-matched-frequency-format-val",
        {"0/1.jpeg": "tench", "10/1.jpeg": "brambling", "2/1.jpeg": "great white shark"},
    ),
    "aid": ({}, "AID", {"BareLand/1.jpg": "bare land", "Viaduct/1.jpg": "viaduct"}),
}


def load(name: str, folder: Path) -> Split:
    return load_split(DataSource(load_plugins().datasets.get(name), str(folder)))


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_original_download_is_read(name: str, tmp_path: Path) -> None:
    texts, place, wanted = ORIGINALS[name]
    make_folder(tmp_path / place, *wanted)
    for file, text in texts.items():
        write(tmp_path / file, text)
    split = load(name, tmp_path)
    labels = [split.classes[label] for label in split.labels]
    assert dict(zip(split.sample_ids, labels, strict=True)) == wanted


@pytest.mark.parametrize("make", [listed, tabled])
def test_lists_of_splits_name_the_splits_if_the_declaration_does_not(
    make: Any, tmp_path: Path
) -> None:
    settings = make(tmp_path)
    is_file = settings["dataset"].endswith(".toml")
    spec = load_plugins().datasets.get("waterbirds")
    spec = load_spec(Path(settings["dataset"])) if is_file else spec
    unnamed = replace(spec, splits={}, split=None)
    split = load_split(DataSource(unnamed, settings["data_dir"]))
    assert split.split == "test" and len(split.labels) == 2


def test_a_border_is_cut_and_counts(tmp_path: Path) -> None:
    place, spec = others_left_out(tmp_path)["data_dir"], load_plugins().datasets.get("objectnet")
    splits = {
        border: load_split(DataSource(replace(spec, border=border), place)) for border in range(4)
    }
    for border, split in list(splits.items())[:3]:
        side = 6 - 2 * border
        assert [decode(s.image).size for s in split.samples(split.sample_ids)] == [(side, side)] * 2
        assert decode(split.images(split.sample_ids[0])[0]).size == (side, side)
    assert len({split.fingerprint for split in splits.values()}) == 4
    assert load_dataset("objectnet", data_dir=place)[0]["image"].size == (2, 2)
    with refused("6 × 6", kind=PixelsError):
        decode(next(splits[3].samples(splits[3].sample_ids[:1])).image)


@pytest.mark.parametrize(
    ("source", "size"), [(items, (4, 3)), (items_of_parquet, (6, 6)), (items_of_paths, (6, 6))]
)
def test_images_of_items_are_cut_to_their_boxes(source: Any, size: Any, tmp_path: Path) -> None:
    settings = source(tmp_path)
    split = load(settings["dataset"], Path(settings["data_dir"]))
    for sample in split.samples(split.sample_ids):
        assert sample.item is not None and {decode(i).size for i in sample.item.images} == {size}


def test_tars_that_the_library_reads_have_one_column_of_labels() -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"__key__": pa.string(), "__url__": pa.string(), "cls": pa.int64(), "webp": image}
    chosen = choose_columns(pa.schema(columns.items()), "tars")
    assert dict(chosen.sources) == {"image": "webp", "label": "cls"}


@pytest.mark.skipif(not CALTECH101.is_dir(), reason=f"no {CALTECH101}")
def test_caltech_is_read_for_real() -> None:
    split = load("caltech101", CALTECH101)
    assert len(split.classes) == 101 and len(set(split.labels)) == 101
    for sample_id, label in zip(split.sample_ids, split.labels, strict=True):
        if sample_id.startswith("Faces/"):
            assert split.classes[label] == "off-center face"
