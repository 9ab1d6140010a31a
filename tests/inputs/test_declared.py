"""Declared datasets as they are used: sources, classes by name, lists, boxes, the command line."""

from pathlib import Path

import pyarrow as pa
import pytest
from helpers.command import bench
from helpers.given import make_folder, picture, write_parquet
from helpers.refusals import refused, warned
from PIL import Image

from bench.discovery.declared import load_spec
from bench.inputs import replaced as cropping
from bench.inputs.class_names import find_indices
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import decode
from bench.inputs.replaced import crop_to_column
from bench.inputs.split import Split
from bench.inputs.survey import find_source_files
from bench_plugins.datasets._declared import compile_line

BIRDS = """
name = "birds"
source = "pictures"
classes = ["robin", "house finch"]
template = "a photo of a {class}"
"""


def declare(folder: Path, text: str = BIRDS, name: str = "birds.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def load(file: Path, split: str | None = None, data_dir: Path | None = None) -> Split:
    return load_split(DataSource(load_spec(file), str(data_dir) if data_dir else None), split)


def test_numbers_for_names_count_from_0_or_from_1(tmp_path: Path) -> None:
    spec = load_spec(declare(tmp_path))
    assert find_indices(["1", "0"], spec, "x") == [1, 0]
    assert find_indices(["1", "2"], spec, "x") == [0, 1]
    with refused("0 to"):
        find_indices(["1"], spec, "x")


@pytest.mark.parametrize(
    "line", ["{file}", "{file} {file} {label}", "{file} {label} {x}", "{label} {label} {file}"]
)
def test_a_line_has_a_file_and_a_label(line: str) -> None:
    with refused("{file}", "{label}"):
        compile_line(line)


def test_lines_are_read_in_bounded_time(tmp_path: Path) -> None:
    pattern = compile_line("{_}a{_}a{_}a{_}a{_}a {file}a{label}b")
    assert pattern.fullmatch("a" * 1000) is None
    make_folder(tmp_path / "copy", "1.png", "2.png")
    (tmp_path / "copy/test.txt").write_text("a" * 1001)
    text = BIRDS + '[splits]\ntest = 2\n[layout]\nlists = {test = "test.txt"}\n'
    with refused("test.txt:1"):
        load(declare(tmp_path, text), "test", tmp_path / "copy")


def test_images_are_cropped_to_their_box(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pictures", "1.png", "2.png")
    Image.new("RGB", (8, 8)).save(folder / "2.png")
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "1.png", "label": "robin"}\n{"file_name": "2.png", "label": "house finch"}\n'
    )
    rows = load(declare(tmp_path)).rows
    boxed = rows.add_column("where", [[1, 2, 3, 4], [6, 6, 9, 9]])
    cropped = crop_to_column(boxed, "where", "x").cast_column("image", rows.features["image"])
    assert [decode(row["image"]).size for row in cropped] == [(3, 4), (2, 2)]
    with refused("image 1", "8×8"):
        crop_to_column(rows.add_column("where", [[9, 9, 1, 1], [0, 0, 1, 1]]), "where", "x")


def test_cropped_images_are_kept_on_disk_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "pictures", "robin/1.png", "house finch/1.png")
    rows = load(declare(tmp_path)).rows
    boxes = [[0, 0, 2, 3], [1, 1, 1, 1]]
    first = crop_to_column(rows.add_column("where", boxes), "where", "x")
    [file] = find_source_files(first, first.data.table)  # what is in memory has none
    assert Path(file).suffix == ".arrow" and list(first["where"]) == boxes
    monkeypatch.setattr(cropping, "decode", lambda *_, **__: pytest.fail("cropped again"))
    again = crop_to_column(rows.add_column("where", boxes), "where", "x")
    assert again.data.table.equals(first.data.table)
    turned = crop_to_column(
        rows.add_column("where", boxes).select([1, 0]).select([1, 0]), "where", "x"
    )
    assert turned.data.table.equals(first.data.table)
    with pytest.raises(pytest.fail.Exception, match="cropped again"):
        crop_to_column(rows.add_column("where", boxes[::-1]), "where", "x")


@pytest.mark.parametrize(
    ("more", "wanted"), [("[splits]\ntrain = 2\ntest = 2\n", "test"), ("[splits]\na = 2\n", "a")]
)
def test_the_split_is_test_or_the_only_one_where_none_is_named(
    tmp_path: Path, more: str, wanted: str
) -> None:
    make_folder(tmp_path / "pictures", "robin/1.png", "house finch/1.png")
    assert load_spec(declare(tmp_path, BIRDS + more)).split == wanted


def test_a_folder_may_hold_its_declaration(tmp_path: Path) -> None:
    make_folder(tmp_path / "pictures", "robin/1.png", "house finch/1.png")
    declare(tmp_path, BIRDS, "dataset.toml")
    done = bench("prompts", tmp_path, "--json")
    assert [row["prompt"] for row in done.json] == [
        "a photo of a robin",
        "a photo of a house finch",
    ]


def test_python_takes_every_kind_of_name(tmp_path: Path) -> None:
    import bench as toolkit

    make_folder(tmp_path / "pictures", "robin/1.png", "house finch/1.png")
    rows = toolkit.load_dataset(str(declare(tmp_path)))
    assert rows.features["label"].names == ["robin", "house finch"] and len(rows) == 2
    parquet = {"image": pa.array([picture(1), picture(2)]), "label": ["a", "b"]}
    write_parquet(tmp_path / "copy/data/test-0.parquet", parquet)
    assert len(toolkit.load_dataset("hf:owner/name", data_dir=str(tmp_path / "copy"))) == 2


def test_the_command_line_takes_a_file_and_its_template_sets(tmp_path: Path) -> None:
    make_folder(tmp_path / "pictures", "robin/1.png", "house finch/1.png")
    file = declare(tmp_path, BIRDS + '[templates]\nclip = ["a {class}", "the {class}"]\n')
    done = bench("prompts", file, "--template", "@clip", "--json")
    assert [row["prompt"] for row in done.json][:2] == ["a robin", "a house finch"]
    assert bench("prompts", file, "--template", "@clpi").refuses("'clip'")
    taken = declare(tmp_path, BIRDS.replace("birds", "digits"), "d.toml")
    for name, subject in ((taken, "digits"), (tmp_path / "x.toml", "x.toml"), ("hff:a/b", "hff:")):
        assert bench("prompts", name).refuses(subject)


def test_what_nobody_could_load_is_said(tmp_path: Path) -> None:
    make_folder(tmp_path / "pictures", "robin/1.png", "house finch/1.png")
    file = declare(tmp_path, BIRDS + "unverified = true\n")
    with warned("birds"):
        load(file)
