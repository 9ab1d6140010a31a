"""Datasets declared in TOML: read, refused by key, and led nowhere else by data."""

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.given import make_folder
from helpers.refusals import refused, warned

from bench.contracts.specs import DownloadLayout
from bench.discovery.declared import load_spec, register_toml
from bench.inputs.checking import check_data
from bench.inputs.data import DataSource, load_split

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
    assert load_spec(write(tmp_path, GOOD.replace("test = 4", "test = 1"))).splits["test"] == 1
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
        ("test = 4", "test = true", ("splits.test", "got True")),
        ('["robin", "house finch"]', '["robin", "Robin"]', ("'robin'", "'Robin'")),
        ('["robin", "house finch"]', '["a", "a"]', ("'a' and 'a' are the same",)),
        ('robin = "a robin"', "robin = 3", ("phrases.robin", "got 3")),
        ("[columns]", "[layout]\nlists = 3\n[columns]", ("layout.lists", "got 3")),
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


HEAD = 'name = "birds"\n'
CLASSES = 'classes = ["robin", "house finch"]\n'
OUT = {
    "an absolute source": 'source = "{out}"\n' + CLASSES,
    "a source above": 'source = "../out"\n' + CLASSES,
    "a linked source": 'source = "link"\n' + CLASSES,
    "the Hub": 'source = "hf:evil/beacon"\n' + CLASSES,
    "torchvision": 'source = "torchvision:MNIST"\n' + CLASSES,
    "classes": 'source = "."\nclasses = "/etc/passwd"\n',
    "found": 'source = "."\nfound = "../out/x.txt"\n' + CLASSES,
    "templates": 'source = "."\n' + CLASSES + '[templates]\nx = "../out/x.txt"\n',
    "labels": 'source = "."\n' + CLASSES + '[labels]\nx = "../out/x.txt"\n',
    "a Hub backbone": 'source = "."\nbackbone = "owner/name"\n' + CLASSES,
    "a registered backbone": 'source = "."\nbackbone = "tiny-digits"\n' + CLASSES,
    "a reader": 'source = "download"\n' + CLASSES + '[layout]\nreader = "hf:a/b"\nmarker = "x"\n',
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a link that leads out of it, to two classes of pictures."""
    make_folder(tmp_path / "out", "robin/1.png", "house finch/1.png")
    (tmp_path / "out/x.txt").write_text("a secret\nof the machine\n")
    make_folder(tmp_path / "data", "robin/1.png", "house finch/1.png")
    (tmp_path / "data/link").symlink_to(tmp_path / "out")
    return tmp_path / "data"


@pytest.mark.parametrize("case", OUT)
def test_what_came_with_data_names_nothing_outside(case: str, data: Path) -> None:
    (data / "dataset.toml").write_text(HEAD + OUT[case].replace("{out}", str(data.parent / "out")))
    done = bench("prompts", data)
    assert done.refuses("dataset.toml")
    assert "secret" not in done.err + done.out and "root:" not in done.err + done.out


@pytest.mark.parametrize(("key", "name"), [("classes", "pipe"), ("classes", "/dev/zero")])
def test_pipes_and_devices_are_not_read(key: str, name: str, data: Path) -> None:
    os.mkfifo(data / "pipe")
    (data / "dataset.toml").write_text(f'{HEAD}source = "."\n{key} = "{name}"\n')
    done = bench("prompts", data)
    assert done.code == 2 and "Unexpected" not in done.err
    named = bench("prompts", data / "dataset.toml")
    assert named.refuses(name)


def test_a_declaration_that_is_a_pipe_or_a_link_is_refused(data: Path) -> None:
    os.mkfifo(data / "dataset.toml")
    assert "is not a regular file" in bench("prompts", data).err
    (data / "dataset.toml").unlink()
    (data.parent / "out/x.toml").write_text(HEAD + 'source = "."\n' + CLASSES)
    (data / "dataset.toml").symlink_to(data.parent / "out/x.toml")
    assert "leads out of the folder" in bench("prompts", data).err


def test_images_behind_links_that_lead_out_are_refused(data: Path) -> None:
    (data / "robin/2.png").symlink_to(data.parent / "out/robin/1.png")
    (data / "dataset.toml").write_text(f'{HEAD}source = "."\n{CLASSES}')
    with refused("2.png"):
        load_split(DataSource(load_spec(data / "dataset.toml", in_data=True)))


def test_a_file_that_the_user_names_may_lead_elsewhere_and_says_so(data: Path) -> None:
    file = data / "birds.toml"
    file.write_text(f'{HEAD}source = "../out"\nbackbone = "owner/name"\n{CLASSES}')
    with warned("source = '../out'", "backbone = 'own"):
        spec = load_spec(file)
    assert load_split(DataSource(spec)).classes == ("robin", "house finch")


@pytest.mark.parametrize(
    "layout",
    [
        {"root": "../out"},
        {"lists": {"test": "../out/x.txt"}},
        {"table": "../out/x.txt"},
        {"reader": "hf:a/b", "marker": "../out"},
    ],
)
def test_a_layout_leads_from_the_folder_that_the_user_names(
    layout: DownloadLayout, data: Path
) -> None:
    (data / "birds.toml").write_text(f'{HEAD}source = "download"\n{CLASSES}')
    spec = load_spec(data / "birds.toml")
    spec.layout.update(layout)
    with refused("../out"):
        load_split(DataSource(spec, str(data)), "test")


def test_checksums_are_of_files_in_the_folder(data: Path) -> None:
    os.mkfifo(data / "pipe")
    sums = "".join(f'"{name}" = "md5:{"0" * 32}"\n' for name in ("link/x.txt", "pipe", "no"))
    (data / "birds.toml").write_text(f'{HEAD}source = "."\n{CLASSES}[checksums]\n{sums}')
    findings = check_data(DataSource(load_spec(data / "birds.toml"), str(data))).findings
    wrong = [finding.said for finding in findings if finding.kind == "checksum"]
    assert len(wrong) == 2 and "leads out" in wrong[0] and "not a regular file" in wrong[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (CLASSES + '[phrases]\nrobin = "a\\u001b[31m robin"\n', "phrases.robin"),
        ('classes = ["a\\u000bb", "c"]\n', "classes"),
        (CLASSES + '[templates]\nx = ["a {class}\\u2028"]\n', "templates.x"),
        ('classes = "words.txt"\n', "classes"),
    ],
)
def test_control_characters_are_refused(more: str, said: str, data: Path) -> None:
    (data / "words.txt").write_text("one\x1btwo\nthree\n")
    (data / "dataset.toml").write_text(f'{HEAD}source = "."\n{more}')
    with refused(said):
        load_spec(data / "dataset.toml", in_data=True)


def test_names_that_no_folder_can_have_are_refused(data: Path) -> None:
    (data / "birds.toml").write_text(f'name = "{"x" * 10_000}"\nsource = "."\n{CLASSES}')
    for names in (
        ["prompts", data / "birds.toml"],
        ["prompts", "./x-{0.." + "9" * 5000 + "}.tar"],
        ["prompts", f"./{'x' * 250}{{0000000000..0000000001}}.tar"],
    ):
        done = bench(*names)
        assert done.code == 2 and "Unexpected" not in done.err and len(done.err) < 1000, done.err
