"""Every dataset that we declare: complete and readable; tiny copies in the original layouts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.command import bench
from helpers.given import make_folder, picture, write_parquet
from helpers.places import CALTECH101

from bench import load_dataset
from bench.contracts.specs import DatasetSpec
from bench.discovery.declaration_checks import DOWNLOAD
from bench.discovery.loading import load_plugins
from bench.inputs.class_names import check_names, find_indices
from bench.inputs.data import DataSource, find_source, load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.prompts import from_template, from_templates
from bench_plugins.datasets._arrow import choose_columns
from bench_plugins.datasets._declared import compile_line
from bench_plugins.datasets.hub import parse_source

SUGARCREPE = [
    "add_att",
    "add_obj",
    "replace_att",
    "replace_obj",
    "replace_rel",
    "swap_att",
    "swap_obj",
]
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


def household(root: Path) -> dict[str, str]:
    names = "alarm_clock/1.jpg", "squeegee/2.jpg", "wok/3.jpg"  # the second is not ImageNet's
    make_folder(root / "objectnet-1.0/images", *names)
    return {"alarm_clock/1.jpg": "alarm clock", "wok/3.jpg": "wok"}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("objectnet", household),
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
    split = load_split(DataSource(spec, str(tmp_path)))
    found = {
        i: split.classes[label] for i, label in zip(split.sample_ids, split.labels, strict=True)
    }
    assert found == wanted and split.split == spec.split and split.name == name


def test_a_border_is_cut_and_counts(tmp_path: Path) -> None:
    household(tmp_path)
    spec = load_plugins().datasets.get("objectnet")
    split = load_split(DataSource(spec, str(tmp_path)))
    assert [decode(s.image).size for s in split.samples(split.sample_ids)] == [(4, 4), (4, 4)]
    assert decode(split.images(split.sample_ids[0])[0]).size == (4, 4)
    rows = load_dataset("objectnet", data_dir=str(tmp_path))
    assert len(rows) == 2 and rows[0]["image"].size == (4, 4)
    whole = load_split(DataSource(replace(spec, border=0), str(tmp_path)))
    assert whole.fingerprint != split.fingerprint
    assert (
        load_split(DataSource(replace(spec, border=1), str(tmp_path))).fingerprint
        != split.fingerprint
    )
    gone = load_split(DataSource(replace(spec, border=4), str(tmp_path)))
    with pytest.raises(PixelsError, match="8 × 8 pixels"):
        decode(next(gone.samples(gone.sample_ids[:1])).image)


def relations(root: Path) -> None:
    make_folder(root / "images", "1.jpg", "2.jpg")
    boxes = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 4, "bbox_h": 3}
    texts = {"true_caption": "the cat on the mat", "false_caption": "the mat on the cat"}
    records = [{"image_path": f"{n}.jpg", "relation_name": "on", **boxes, **texts} for n in (1, 2)]
    write(root / "visual_genome_relation.json", json.dumps(records))


def crepes(root: Path) -> None:
    make_folder(root / "val2017", "1.jpg", "2.jpg")
    record = {"filename": "1.jpg", "caption": "a cat", "negative_caption": "a dog"}
    for part in SUGARCREPE:
        write(root / f"data/{part}.json", json.dumps({"0": record}))


def prepositions(root: Path) -> None:
    make_folder(root / "data/controlled_images", "mug_on_table.jpeg")
    record = {
        "image_path": "data/controlled_images/mug_on_table.jpeg",
        "caption_options": ["a mug on a table", "a mug under a table"],
    }
    write(root / "data/controlled_images_dataset.json", json.dumps([record]))


def pairs(root: Path) -> None:
    columns = {
        "id": [7, 8],
        "image_0": pa.array([picture(1), picture(2)]),
        "image_1": pa.array([picture(3), picture(4)]),
        "caption_0": ["a b", "c d"],
        "caption_1": ["b a", "d c"],
        "collapsed_tag": ["Object", "Relation"],
    }
    write_parquet(root / "data/test-0.parquet", columns)


@pytest.mark.parametrize(
    ("name", "make", "ids", "groups"),
    [
        ("aro-relation", relations, ("0", "1"), ("on", "on")),
        ("sugarcrepe", crepes, ("add_att/0", "add_obj/0"), ("add_att", "add_obj")),
        ("whatsup", prepositions, ("0",), (None,)),
        ("winoground", pairs, ("7", "8"), ("Object", "Relation")),
    ],
)
def test_items_are_read_from_the_original(
    name: str, make: Any, ids: Any, groups: Any, tmp_path: Path
) -> None:
    make(tmp_path)
    split = load_split(DataSource(load_plugins().datasets.get(name), str(tmp_path)))
    assert split.items is not None and split.sample_ids[: len(ids)] == ids
    first = list(split.samples(ids))
    assert tuple(sample.group for sample in first) == groups
    sample = first[0]
    assert sample.item is not None and sample.label == (1 if name == "winoground" else 0)
    sizes = {decode(image).size for image in sample.item.images}
    assert sizes == {{"aro-relation": (4, 3), "winoground": (4, 4)}.get(name, (8, 8))}


def test_groups_of_waterbirds_are_label_and_place(tmp_path: Path) -> None:
    make_folder(tmp_path, "001.A/1.jpg", "002.B/2.jpg", "002.B/3.jpg")
    head = "img_id,img_filename,y,split,place,place_filename\n"
    lines = "1,001.A/1.jpg,0,2,1,x\n2,002.B/2.jpg,1,2,1,x\n3,002.B/3.jpg,1,0,0,x\n"
    write(tmp_path / "metadata.csv", head + lines)
    split = load_split(DataSource(load_plugins().datasets.get("waterbirds"), str(tmp_path)))
    assert split.labels == (0, 1)
    samples = list(split.samples(split.sample_ids))
    assert [sample.group for sample in samples] == ["y 0, place 1", "y 1, place 1"]
    absent = bench("run", "waterbirds")
    assert absent.code == 2 and "name its folder with --data-dir" in absent.err
    write(tmp_path / "metadata.csv", head + "1,gone.jpg,0,2,1,x\n")
    wrong = bench("run", "waterbirds", "--data-dir", tmp_path)
    assert "metadata.csv:2: there is no file 'gone.jpg'" in wrong.err


def test_a_truth_value_of_celeba_is_a_class_and_a_group(tmp_path: Path) -> None:
    rows = {"image": [picture(1), picture(2)], "Blond_Hair": [True, False], "Male": [False, False]}
    write_parquet(tmp_path / "test.parquet", rows)
    split = load_split(DataSource(load_plugins().datasets.get("celeba"), str(tmp_path)))
    assert split.labels == (1, 0)
    groups = [sample.group for sample in split.samples(split.sample_ids)]
    assert groups == ["Blond_Hair True, Male False", "Blond_Hair False, Male False"]


def test_groups_of_fmow_are_regions_in_the_data_of_wilds(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {
        "__key__": ["s0000003", "s0000004", "s0000005", "s0000006"],
        "__url__": ["0.tar"] * 4,
        "cls": [40, 0, 10, 61],
        "npy": [[3, 14, 40, 0], [5, 15, 0, 0], [1, 14, 10, 0], None],
        "png": [picture(1), picture(2), picture(3), picture(4)],
    }
    write_parquet(tmp_path / "test.parquet", rows)
    split = load_split(DataSource(load_plugins().datasets.get("fmow"), str(tmp_path)))
    assert split.sample_ids == tuple(rows["__key__"])
    assert [split.classes[n] for n in split.labels][:2] == ["race track", "airport"]
    groups = [sample.group for sample in split.samples(split.sample_ids)]
    assert groups == ["Americas", None, "Europe", None]  # WILDS leaves out the region "Other"


def test_tars_that_the_library_reads_have_one_column_of_labels() -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"__key__": pa.string(), "__url__": pa.string(), "cls": pa.int64(), "webp": image}
    chosen = choose_columns(pa.schema(columns.items()), "tars")
    assert dict(chosen.sources) == {"image": "webp", "label": "cls"}


@pytest.mark.skipif(not CALTECH101.is_dir(), reason=f"no {CALTECH101}")
def test_caltech_is_read_for_real() -> None:
    split = load_split(DataSource(load_plugins().datasets.get("caltech101"), str(CALTECH101)))
    assert len(split.classes) == 101 and len(set(split.labels)) == 101
    for sample_id, label in zip(split.sample_ids, split.labels, strict=True):
        if sample_id.startswith("Faces/"):
            assert split.classes[label] == "off-center face"
