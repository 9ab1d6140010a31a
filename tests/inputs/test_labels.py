"""Labels, classes and ids: checked completely, before anything is scored."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Value
from helpers.command import bench
from helpers.given import make_folder, picture, rows_of, spec_of
from helpers.refusals import refused, warned

from bench.inputs.class_names import convert_to_words, name_classes
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split

TWO = ClassLabel(names=["cat", "dog"])
INT, TEXT = Value("int64"), Value("string")


def load(labels: list[Any], feature: Any, classes: Any = None, **columns: Any) -> Split:
    return load_split(DataSource(spec_of(rows_of(labels, feature, **columns), classes)))


GOOD: dict[str, tuple[list[Any], Any, Any, tuple[str, ...], list[int]]] = {
    "class labels": ([1, 0, 1], TWO, None, ("cat", "dog"), [1, 0, 1]),
    "class labels in words": (
        [0, 1],
        ClassLabel(names=["grand_piano", "x"]),
        None,
        ("grand piano", "x"),
        [0, 1],
    ),
    "another spelling": (
        [0, 1],
        ClassLabel(names=["0", "1"]),
        ("zero", "one"),
        ("zero", "one"),
        [0, 1],
    ),
    "text": (["grand_piano", "cat"], TEXT, None, ("cat", "grand piano"), [1, 0]),
    "text that is declared": (["Dog", "cat"], TEXT, ("cat", "dog"), ("cat", "dog"), [1, 0]),
    "numbers that are declared": ([1, 0], INT, ("cat", "dog"), ("cat", "dog"), [1, 0]),
    "small numbers": ([1, 0], Value("uint8"), ("cat", "dog"), ("cat", "dog"), [1, 0]),
    "bare numbers": ([10, 9], INT, None, ("9", "10"), [1, 0]),
}


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.filterwarnings("ignore::bench.errors.BenchWarning")
def test_labels_become_class_indices(case: str) -> None:
    labels, feature, declared, classes, indices = GOOD[case]
    split = load(labels, feature, declared)
    assert (split.classes, list(split.labels)) == (classes, indices)


def test_images_without_a_label_are_left_out_on_request() -> None:
    spec = spec_of(rows_of([0, -1, 1, None], TWO, sample_id=(["a", "b", "c", "d"], TEXT)))
    with warned("2 of 4"):
        split = load_split(DataSource(spec, skip_unlabelled=True))
    assert split.sample_ids == ("a", "c") and split.labels == (0, 1)
    assert [sample.sample_id for sample in split.samples(["c"])] == ["c"]
    whole = spec_of(rows_of([0, 1], TWO, sample_id=(["a", "c"], TEXT)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_split(DataSource(whole, skip_unlabelled=True)).labels == (0, 1)
    with refused("2 images"):
        load_split(DataSource(spec_of(rows_of([-1, None], TWO)), skip_unlabelled=True))


def test_a_selection_of_rows_keeps_its_labels_and_ids() -> None:
    rows = rows_of([0, 1, 1, 0], TWO, sample_id=(list("abcd"), TEXT))
    split = load_split(DataSource(spec_of(rows.select([3, 1]))))
    assert split.sample_ids == ("d", "b") and split.labels == (0, 1)
    assert split.rows[0]["image"]["bytes"] == picture(3)["bytes"]
    twice = load_split(DataSource(spec_of(rows.remove_columns("sample_id").select([1, 3, 1]))))
    assert twice.labels == (1, 0, 1) and twice.sample_ids[2] == f"{twice.sample_ids[0]}-2"


def test_names_become_words_alike() -> None:
    birds = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    assert convert_to_words(birds) == ("Black footed Albatross", "Laysan Albatross")
    assert convert_to_words(["1_cat", "dog"]) == ("1 cat", "dog")  # not all are numbered
    assert convert_to_words(["1_cat", "2_cat"]) == ("1 cat", "2 cat")  # they would be the same
    assert convert_to_words(["737-200", "747-100"]) == ("737-200", "747-100")  # aeroplanes
    assert convert_to_words(["boeing_737-max", "airbus_320-neo"])[0] == "boeing 737-max"
    assert convert_to_words(["1_Cat", "2_cat"]) == ("1 Cat", "2 cat")  # equal but for case
    names = name_classes(["grand__piano", "cat"], "It", declared=False)
    assert names.names == ("grand piano", "cat") and names.changes == [
        ("grand__piano", "grand piano")
    ]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (["n01440764", "n01443537"], "n01440764"),
        (["cat", "n01443537"], "n01443537"),
        (["0", "1"], "numbers"),
    ],
)
def test_codes_are_warned_of_with_the_remedy(found: list[str], kind: str) -> None:
    with warned(kind, "--class-names"):
        name_classes(found, "It", declared=False)


def test_what_a_folder_holds_besides_its_images_is_said(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path / "pets",
        *("cat/1.png", "dog/a/2.png", ".git/3.png", "__MACOSX/cat/4.png", "cat/._1.png"),
    )
    (folder / "bird").mkdir()
    (folder / "bird" / "1.heic").write_bytes(b"")
    (folder / "link").symlink_to(folder / "cat")
    done = bench("prompts", folder, "--json")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "Left out" in line]
    assert [row["class"] for row in done.json] == ["cat", "dog"]
    for part in (
        "2 hidden folders (.git, __MACOSX)",
        "1 hidden file",
        "1 file of other types (.heic)",
        "1 linked folder (link)",
        "1 class folder without images (bird)",
    ):
        assert part in line


def test_a_class_of_another_split_is_a_class(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path, "train/a/1.png", "train/b/1.png", "test/b/2.png", "notes/x/3.png"
    )
    done = bench("run", folder, "--backbone", "tiny-digits", "--dry-run", "--json")
    assert done.json["prompts"] == 2 and done.json["images"] == 1
    assert "1 folder beside the splits (notes)" in done.err
    assert "no images of classes that other splits have" in done.err and "the same: a." in done.err
