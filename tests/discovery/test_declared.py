"""Datasets declared in TOML: read completely, or refused with the key that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.discovery.declared import load_spec, register_toml
from bench.errors import UserError

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
        ('name = "birds"', 'nmae = "birds"', "unknown key 'nmae'.*Did you mean 'name'"),
        ('name = "birds"', "", "the key 'name' is missing"),
        ('name = "birds"', 'name = "Big Birds"', "must consist of lower case letters"),
        ('source = "pictures"', "", "the key 'source' is missing"),
        ('image = "img"', 'imaeg = "img"', "columns: unknown key 'imaeg'.*'image'"),
        ('robin = "a robin"', 'robbin = "x"', "'robbin', which is not one of the classes.*'robin'"),
        ('test = "validation"', 'tset = "x"', "'tset', which is not one of the splits.*'test'"),
        ("a photo of a {class}, a bird", "a bird", r"template 'a bird' has no \{class\}"),
        ('["n1", "n2"]', '["n1"]', "found must have a name for each of 2 classes, got 1"),
        ('["n1", "n2"]', "[1, 2]", "found must be a list of texts"),
        ("unverified = true", 'groups = ["a[x]"]', r"groups must be columns, or .* got 'a\[x\]'"),
        ("[columns]", "[group_names]\na = 3\n[columns]", r"group_names\.a must be a table, got 3"),
        ('"templates.txt"', '"none.txt"', "templates.clip = 'none.txt' cannot be read"),
        ("unverified = true", 'unverified = "yes"', "unverified must be true or false, got 'yes'"),
        ("test = 4", "test = 0", r"splits.test must be a number of images .* got 0"),
        ("test = 4", 'test = "many"', r"splits.test must be a number of images .* got 'many'"),
        ("test = 4", "test = true", r"splits.test must be a number of images .* got True"),
        ('["robin", "house finch"]', '["robin", "Robin"]', "'robin' and 'Robin' are the same"),
        ('robin = "a robin"', "robin = 3", r"phrases\.robin must be text, got 3"),
        (
            "[columns]",
            "[layout]\nlists = 3\n[columns]",
            r"layout\.lists must be a table, got 3",
        ),
        ("[columns]", "[layout]\nroot = 3\n[columns]", r"layout\.root must be text, got 3"),
        (
            "[columns]",
            '[layout]\nreader = "x:y"\n[columns]',
            "reader and marker require each other",
        ),
        ("[columns]", '[layout]\ntable = "x"\n[columns]', "a table also requires file_column"),
        ("[columns]", "[item]\nimages = []\n[columns]", "images must be a list, each text"),
        ("unverified = true", "items = true", r"items = true requires a table \[item\]"),
        ('"templates.txt"', "[]", "templates.clip is empty"),
        ('split = "test"', 'split = "tset"', "split must be one of .*'tset'"),
        ("md5:0", "md4:0", r"checksums\.birds\.zip must be md5"),
        ("[splits]", "[splits", "is not a TOML file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError, match=said):
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
