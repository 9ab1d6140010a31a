"""A file that says the classes in words."""

import itertools
import json
import unicodedata
from pathlib import Path

import pytest
from datasets import Value
from helpers.command import bench
from helpers.given import make_folder, rows_of, spec_of
from helpers.refusals import refused, warned

from bench.discovery.loading import load_plugins
from bench.inputs.class_names import (
    OTHER,
    check_order,
    find_indices,
    find_positions,
    name_classes,
    read_class_names,
)
from bench.inputs.data import DataSource, load_split
from bench.inputs.prompts import from_file

FOUND = ("n01440764", "n01443537")
WORDS = ("tench", "gold fish")
FILES = {
    "object.json": json.dumps(dict(zip(FOUND, WORDS, strict=True))),
    "list.json": json.dumps(WORDS),
    "pairs.csv": "n01443537,gold fish\nn01440764,tench\n",
    "header.csv": "name,words\nn01443537,gold fish\nn01440764,tench\n",
    "list.txt": "tench\n\ngold fish\n",
    "synsets.txt": "n01443537 gold fish\nn01440764 tench\n",
}


@pytest.mark.parametrize("name", FILES)
def test_the_forms_of_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(FILES[name])
    assert read_class_names(file, FOUND) == WORDS
    assert name_classes(FOUND, "It", declared=False, file=file).changes[0] == (FOUND[0], "tench")


def test_a_list_follows_numbers_and_not_their_order_as_text(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    words = [f"word {i}" for i in range(11)]
    file.write_text("\n".join(words))
    for first, end in itertools.product((0, 1), ("", ".0")):
        numbers = sorted(f"{i + first}{end}" for i in range(11))  # 0, 1, 10, 2 …
        named = read_class_names(file, numbers)
        assert [named[numbers.index(f"{i + first}{end}")] for i in range(11)] == words
    for others in ([*range(10), 12], range(2, 13), range(-1, 10)):
        with refused("0 or 1"):
            read_class_names(file, list(map(str, others)))


@pytest.mark.parametrize("first", [0, 1])
def test_a_list_names_numeric_labels_from_0_or_1(first: int, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("gold fish\ntench\nowl\n")
    labels = [2 + first, first, -1]
    source = DataSource(
        spec_of(rows_of(labels, Value("int64"))), class_names=file, skip_unlabelled=True
    )
    with warned("1 of 3"):
        split = load_split(source)
    assert (split.classes, split.labels) == (("gold fish", "tench", "owl"), (2, 0))


ALIKE = (
    ["C", "C++", "C#"],
    ["+", "-", "*"],
    ["A", "A+", "a-"],
    ["กิน", "กัน"],
    ["1", "-1", "10", "1.0"],
)


@pytest.mark.parametrize("names", ALIKE, ids=lambda names: names[0])
def test_names_that_differ_in_signs_alone_are_never_mixed_up(
    names: list[str], tmp_path: Path
) -> None:
    spelt = [*enumerate(names)]
    assert [*find_positions(names, spelt).values()] == [*range(len(names))]
    for own, name in spelt:
        for other in (name.upper(), name.lower(), f" {name} ", f"{name}%", f"{name}.", f"({name})"):
            assert find_positions([other], spelt)[other] in (own, OTHER), other
    assert find_positions(["%"], spelt) == {"%": OTHER}
    check_order(names, names, "data")
    with refused("order"):
        check_order(names[::-1], names, "data")
    file = tmp_path / "prompts.csv"
    lines = (f"a sign no. {number},{name},{number}" for number, name in spelt)
    file.write_text("\n".join(["prompt,classname,classidx", *lines]))
    assert from_file(file, names).class_of_prompt == tuple(range(len(names)))


def test_a_line_of_pairs_whose_class_is_misspelt_makes_no_list_of_them(tmp_path: Path) -> None:
    file, classes = tmp_path / "names.txt", ("cat", "dog", "ibis")
    for line in ("ibiss an ibis", "ibis"):
        file.write_text(f"dog a dog\ncat a cat\n{line}\n")
        with refused("names.txt:3"):
            read_class_names(file, classes)
    file.write_text("big cat\ndog house\nwader\n")
    assert read_class_names(file, classes) == ("big cat", "dog house", "wader")


# What is wrong with any table of a user is refused in `test_users_tables`.
BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "number.json": ("[1, 2]", ("number.json",)),
    "short.json": ('["tench"]', ("short.json", "1 class", "2")),
    "other.json": ('{"n01440765": "x"}', ("'n01440764'", "'n01440765'")),
    "blank.txt": ("n01440764 a\n\nn01440764 b\n", ("blank.txt:3", "'n01440764'")),
    "quoted.csv": ('a,"b\nc"\n', ("quoted.csv:2",)),
    "same.txt": ("fish\nFish\n", ("'Fish'",)),
    "empty.csv": ("n01440764,\nn01443537,x\n", ("'n01440764'",)),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_refused(name: str, tmp_path: Path) -> None:
    content, named = BAD[name]
    (tmp_path / name).write_text(content)
    with refused(*named) as error:
        name_classes(FOUND, "It", declared=False, file=tmp_path / name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("others", [["x"], ["x", "y"]])
def test_classes_that_are_not_declared_are_counted(others: list[str]) -> None:
    spec, more = load_plugins().datasets.get("digits"), "1 more"
    with refused("data", "'x'", *([more] if others[1:] else [])) as error:
        find_indices([*(spec.classes or ()), *others], spec, "data")
    assert (more in str(error.value)) == bool(others[1:])


def test_bench_prompts_shows_what_was_changed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", "001.Black_bird/1.png", "002.Crow/1.png")
    shown = bench("prompts", folder)
    assert "in the data" in shown.out and "001.Black_bird" in shown.out
    assert "a photo of a Black bird" in shown.out
    (tmp_path / "names.csv").write_text("001.Black_bird,owl\n002.Crow,crow\n")
    rows = bench("prompts", folder, "--class-names", tmp_path / "names.csv", "--json").json
    assert [(row["found"], row["prompt"]) for row in rows] == [
        ("001.Black_bird", "a photo of an owl"),
        ("002.Crow", "a photo of a crow"),
    ]
    assert "in the data" not in bench("prompts", "digits").out


def test_names_are_those_of_the_data_in_another_normal_form_or_case(tmp_path: Path) -> None:
    file = tmp_path / "n.json"
    file.write_text(json.dumps({"Café": "coffee house", "PUB": "beer house"}))
    in_data = ("pub", unicodedata.normalize("NFD", "café"))
    assert read_class_names(file, in_data) == ("beer house", "coffee house")
