"""Data as people have it: tables beside flat folders, parquet of any writer, saved datasets."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.command import bench
from helpers.given import load_folder as load
from helpers.given import make_folder, picture, write_parquet
from helpers.refusals import warned
from PIL import Image

from bench.inputs.pixels import decode
from bench_plugins.datasets._arrow import converted

PICTURES = [picture(10), picture(20), picture(30)]


def flat(tmp_path: Path, table: str, name: str = "data/metadata.csv") -> Path:
    folder = make_folder(tmp_path / "data", "1.png", "2.png", "3.png")
    (tmp_path / name).write_text(table)
    return folder


@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_table_of_labels_has_one_split(tmp_path: Path, place: str) -> None:
    """Another split is refused, and neither found by `check-data` nor learned from."""
    table = "file_name,label\n1.png,cat\n2.png,dog\n3.png,cat\n"
    folder = flat(tmp_path, table, "data/labels.csv")
    file = folder / "labels.csv"
    arguments = [str(folder), "--labels", str(file)] if place == "folder" else [str(file)]
    assert bench("check-data", *arguments, "--split", "all").code in (0, 4)
    run = ("run", *arguments, "--backbone")
    assert bench(*run, "random", "--split", "banana").refuses(file, "'banana'")
    problems = bench("check-data", *arguments, "--json").json
    assert problems["splits"] == {"all": 3}
    assert not [row for row in problems["findings"] if row["kind"] == "across"]
    assert bench(*run, "nearest-mean").refuses("'train'")


def raw(kind: str) -> pa.Array:
    encoded = [p["bytes"] for p in PICTURES]
    if kind == "struct":
        return pa.array(PICTURES, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    if kind == "bytes only":
        return pa.array([{"bytes": b} for b in encoded])
    return pa.array(encoded, pa.large_binary() if kind == "large binary" else pa.binary())


LABELS: dict[str, pa.Array] = {
    "text": pa.array(["dog", "cat", "dog"]),
    "large text": pa.array(["dog", "cat", "dog"], pa.large_string()),
    "categories": pa.array(["dog", "cat", "dog"]).dictionary_encode(),
}


CASES = [
    *product(("struct", "bytes only", "binary", "large binary"), ["text"]),
    ("struct", "large text"),
    ("struct", "categories"),
]


@pytest.mark.parametrize(("kind", "label"), CASES)
def test_one_parquet_file_without_metadata(kind: str, label: str, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "mine.parquet", {"image": raw(kind), "label": LABELS[label]})
    split = load(file)
    assert (split.name, split.split, split.classes) == ("mine", "all", ("cat", "dog"))
    assert split.labels == (1, 0, 1)
    assert [decode(split.rows[i]["image"]).getpixel((0, 0)) for i in range(3)] == [10, 20, 30]


def test_a_table_is_not_about_the_files_beside_it(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "results/confusion.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), len(name) * 9 + ord(name[0])).save(tmp_path / name)
    (tmp_path / "imgs.csv").write_text("file_name,label\na.png,cat\nb.png,dog\n")
    (tmp_path / "notes.txt").write_text("mine\n")
    assert bench("check-data", tmp_path / "imgs.csv").code == 0
    checked = bench("check-data", tmp_path, "--labels", tmp_path / "imgs.csv")
    assert checked.code == 4 and "that imgs.csv does not list" in checked.out


def test_a_pattern_names_parquet_files(tmp_path: Path) -> None:
    make_folder(tmp_path, "images/1.png", "images/2.png")
    for n, label in ((1, "a"), (2, "b")):
        columns = {"image": [f"images/{n}.png"], "label": [label]}
        pq.write_table(pa.table(columns), tmp_path / f"{n}.parquet")
    split = load(tmp_path / "{1..2}.parquet")
    assert split.labels == (0, 1) and split.fingerprint == load(tmp_path).fingerprint


def test_two_processes_convert_one_file_at_once(tmp_path: Path) -> None:
    file, schema = tmp_path / "x.parquet", pa.schema({"x": pa.int64()})
    file.touch()

    def tables() -> Iterator[pa.Table]:
        yield pa.table({"x": [1]})
        converted("both", [file], "other", schema, lambda: iter([pa.table({"x": [2]})]))
        yield pa.table({"x": [3]})

    arrow = converted("both", [file], "key", schema, tables)
    assert pa.ipc.open_stream(pa.memory_map(str(arrow))).read_all()["x"].to_pylist() == [1, 3]


def test_a_class_of_another_split_is_a_class(tmp_path: Path) -> None:
    """Of a saved dataset; `test_frozen` shows it of parquet, and `test_hub` of the Hub."""
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    labels = {"train": ["a", "b", " "], "test": ["c", "a", "a"]}
    parts = {
        name: datasets.Dataset.from_dict({"image": PICTURES, "label": own}, features)
        for name, own in labels.items()
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    with warned(": b"):
        split = load(tmp_path)
    assert split.classes == ("a", "b", "c") and split.labels == (2, 0, 0)


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("train", "VAL")])
def test_splits_have_the_names_that_people_give_them(
    names: tuple[str, str], tmp_path: Path
) -> None:
    train, other = names
    make_folder(tmp_path, *(f"{name}/{label}/{name}.png" for name in names for label in "ab"))
    assert load(tmp_path).sample_ids == (f"a/{other}.png", f"b/{other}.png")
    assert load(tmp_path, train).split == train
    classes = make_folder(tmp_path / "vehicles", "Train/green/1.png", "Bus/red/2.png")
    assert load(classes).classes == ("Bus", "Train")


def test_absolute_names_are_read_by_any_way_to_their_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "real", "1.png", "2.png")
    (folder / "metadata.csv").write_text(f"file,label\n{folder}/1.png,a\n{folder}/2.png,b\n")
    (tmp_path / "link").symlink_to("real")
    for way in ("real", "link", "real/../real", "link/../real"):
        assert load(tmp_path / way).sample_ids == ("1.png", "2.png")


def test_endings_may_be_upper_case(tmp_path: Path) -> None:
    make_folder(tmp_path, "cat/1.PNG", "dog/2.PNG")
    (tmp_path / "originals.tar").write_bytes(b"")
    assert load(tmp_path).classes == ("cat", "dog")
    write_parquet(tmp_path / "p/X.PARQUET", {"image": PICTURES, "label": ["x", "y", "x"]})
    assert load(tmp_path / "p").labels == load(tmp_path / "p/X.PARQUET").labels == (0, 1, 0)


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "cat/1.png", "dog/1.png")
    for option in ("--labels", "--image-column", "--label-column"):
        assert bench("run", "digits", option, "x", "--dry-run").refuses("'digits'", option)
    assert bench("run", folder, "--label-column", "x", "--dry-run").refuses("parquet")


@pytest.mark.filterwarnings("ignore::bench.errors.BenchWarning")  # numbers for names
def test_what_is_stated_of_other_columns_costs_nothing(tmp_path: Path) -> None:
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    features = {"label": label, "image": {"_type": "Hologram"}, "other": 3}
    cases = [(kind, features, ("cat", "dog")) for kind in (pa.int64(), pa.int32(), pa.uint8())]
    for kind, stated, wanted in (*cases, (pa.string(), {"y": label}, ("0", "1"))):
        images = pa.array([p["bytes"] for p in PICTURES[:2]])
        rows = pa.table({"image": images, "label": pa.array([0, 1]).cast(kind)})
        text = json.dumps({"info": {"features": stated}})
        pq.write_table(rows.replace_schema_metadata({"huggingface": text}), tmp_path / "x.parquet")
        assert load(tmp_path / "x.parquet").classes == wanted
