"""Datasets declared in TOML: read completely, or refused with the key that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import refused

from bench.discovery.declared import load_spec, register_toml

GOOD = """
name = "birds"
source = "pictures"
summary = "two birds"
classes = ["robin", "house finch"]
found = ["n1", "n2"]
template = "a photo of a {class}, a bird"
split = "test"
licence = "CC0"
citation = "Nobody (2020)"
unverified = true
[splits]
test = 4
train = "unknown"
[split_names]
test = "validation"
[phrases]
robin = "a robin"
[templates]
clip = "templates.txt"
[columns]
image = "img"
[checksums]
"birds.zip" = "md5:00000000000000000000000000000000"
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "templates.txt").write_text("a {class}\n\na photo of the {class}\n")
    file = folder / "birds.toml"
    file.write_text(text)
    return file


def test_a_declaration_is_a_spec(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, GOOD))
    assert spec.source == str(tmp_path / "pictures")  # from the file on, wherever one stands
    assert spec.classes == ("robin", "house finch") and spec.found == ("n1", "n2")
    assert spec.splits == {"test": 4, "train": None} and spec.split_names["test"] == "validation"
    assert spec.templates == {"clip": ("a {class}", "a photo of the {class}")}
    assert spec.unverified and spec.licence == "CC0" and "id_column" in spec.parameters


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "birds"', 'nmae = "birds"', ("'nmae'", "'name'")),
        ('name = "birds"', "", ("'name'",)),
        ('name = "birds"', 'name = "Big Birds"', ("Big Birds",)),
        ('source = "pictures"', "", ("'source'",)),
        ('image = "img"', 'imaeg = "img"', ("columns", "'imaeg'", "'image'")),
        ('robin = "a robin"', 'robbin = "x"', ("'robbin'", "'robin'")),
        ('test = "validation"', 'tset = "x"', ("'tset'", "'test'")),
        ("a photo of a {class}, a bird", "a bird", ("'a bird'", "{class}")),
        ('["n1", "n2"]', '["n1"]', ("found", "got 1")),
        ('["n1", "n2"]', "[1, 2]", ("found",)),
        ("unverified = true", 'groups = ["a[x]"]', ("groups", "'a[x]'")),
        ("[columns]", "[group_names]\na = 3\n[columns]", ("group_names.a", "got 3")),
        ('"templates.txt"', '"none.txt"', ("templates.clip", "'none.txt'")),
        ("unverified = true", 'unverified = "yes"', ("unverified", "'yes'")),
        ("test = 4", "test = 0", ("splits.test", "got 0")),
        ("test = 4", 'test = "many"', ("splits.test", "'many'")),
        ("test = 4", "test = true", ("splits.test", "got True")),
        ('["robin", "house finch"]', '["robin", "Robin"]', ("'robin'", "'Robin'")),
        ('robin = "a robin"', "robin = 3", ("phrases.robin", "got 3")),
        ("[columns]", "[layout]\nlists = 3\n[columns]", ("layout.lists", "got 3")),
        ("[columns]", "[layout]\nroot = 3\n[columns]", ("layout.root", "got 3")),
        ("[columns]", '[layout]\nreader = "x:y"\n[columns]', ("reader", "marker")),
        ("[columns]", '[layout]\ntable = "x"\n[columns]', ("table", "file_column")),
        ("[columns]", "[item]\nimages = []\n[columns]", ("images",)),
        ("unverified = true", "items = true", ("items", "[item]")),
        ('"templates.txt"', "[]", ("templates.clip",)),
        ('split = "test"', 'split = "tset"', ("split", "'tset'")),
        ("md5:0", "md4:0", ("checksums.birds.zip", "md5")),
        ("[splits]", "[splits", ("birds.toml",)),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: tuple[str, ...]) -> None:
    assert old in GOOD
    with refused(*said):
        load_spec(write(tmp_path, GOOD.replace(old, new)))


def test_a_package_may_hold_declarations_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "bench_only_toml"
    write(package, GOOD)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    registered: list[dict[str, Any]] = []
    register_toml(lambda **fields: registered.append(fields), "bench_only_toml")
    assert [fields["name"] for fields in registered] == ["birds"]
    assert len(registered[0]["templates"]["clip"]) == 2
