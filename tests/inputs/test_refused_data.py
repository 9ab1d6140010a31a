"""Data that cannot be read as it was meant: each source × damage, refused by name.

A cell of the table makes a source with its damage, and says what the refusal names. What a source
gives when it is whole stands in `test_frozen`; what users write beside their data, in
`test_users_tables`.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Sequence, Value
from helpers.data_sources import (
    Cell,
    Settings,
    Source,
    assert_refused,
    boxed,
    declared,
    declared_groups,
    folder,
    items,
    listed,
    pictures,
    pixels,
    splits,
    stored,
    tabled,
    tar,
    tars_of_numbers,
    torchvision_of_files,
    write,
)
from helpers.given import rows_of, spec_of, write_parquet
from helpers.refusals import refused

from bench.contracts.dataset import Listing, Row
from bench.contracts.specs import DatasetSpec
from bench.errors import PluginError
from bench.inputs.data import DataSource, load_split
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import make_config

pytestmark = pytest.mark.filterwarnings("ignore::bench.errors.BenchWarning")
TWO, INT, TEXT = ClassLabel(names=["cat", "dog"]), Value("int64"), Value("string")
CSV = "metadata.csv"


# Folders of images, and what is named in them.


def made(*names: str, **settings: Any) -> Source:
    return lambda root: {"dataset": str(pictures(root / "x", *names)), **settings}


def linked(link: Path, target: Path) -> str:
    link.symlink_to(target)
    return link.name


def parquet_of(path: Callable[[Path], str]) -> Source:
    """Name a file in a parquet file; one lies beside the folder."""

    def make(root: Path) -> Settings:
        pictures(root, "outside.ppm", "x/inside.ppm")
        images = [stored(1), {"bytes": None, "path": path(root / "x")}]
        write_parquet(root / "x/test.parquet", {"image": images, "label": ["a", "b"]})
        return {"dataset": str(root / "x")}

    return make


def placed(name: str, put: Callable[[Path, Path], object]) -> Source:
    """Put something in the place of a file of data; a file lies beside the folder."""

    def make(root: Path) -> Settings:
        tars = name in ("x.tar", "classnames.txt")  # which have no pictures beside them
        pictures(root / "x", *(() if tars else ("a/1.ppm", "b/1.ppm")))
        (root / "x").mkdir(exist_ok=True)
        if name == "classnames.txt":
            tar(root / "x/y.tar", **{"1_ppm": pixels(1), "1_cls": b"0"})
        put(root / "x" / name, write(root / "out", "a secret\n"))
        return {"dataset": str(root / "x")}

    return make


def broken_name(root: Path) -> Settings:
    made_here = pictures(root / "x", "a/1.ppm", "b/1.ppm")
    (made_here / "b/1.ppm").rename(made_here / "b" / os.fsdecode(b"\xff.ppm"))
    return {"dataset": str(made_here)}


def linked_classes(root: Path) -> Settings:
    pictures(root / "elsewhere", "a/1.ppm", "b/1.ppm")
    (root / "x").mkdir()
    for name in "ab":
        (root / "x" / name).symlink_to(root / "elsewhere" / name)
    return {"dataset": str(root / "x")}


def linked_picture(root: Path) -> Settings:
    pictures(root, "outside.ppm", "x/a/1.ppm", "x/b/1.ppm")
    linked(root / "x/b/2.ppm", root / "outside.ppm")
    return {"dataset": str(root / "x")}


def empty(root: Path) -> Settings:
    (root / "empty/x").mkdir(parents=True)
    return {"dataset": str(root / "empty")}


def of_split(name: str) -> Source:
    return lambda root: {**splits(root), "split": name}


NAMES = ("x.parquet", "x.tar", "metadata.csv", "metadata.jsonl", "dataset.toml", "classnames.txt")
FOLDERS: dict[str, Cell] = {
    "no images": (empty, "empty"),
    "loose images": (made("1.ppm", "a/2.ppm"), "1.ppm"),
    "one class": (made("a/1.ppm", "a/2.ppm"), "'a'"),
    "no such split": (lambda root: {**splits(root), "split": "val"}, "'val'"),
    "no such split of one folder": (lambda root: {**folder(root), "split": "val"}, "'val'"),
    "no such split of tars": (lambda root: {**tars_of_numbers(root), "split": "val"}, "'val'"),
    **{f"the split {name}": (of_split(name), name) for name in ("../x", "..", ".", ".git", "te*t")},
    "a column without a table": (lambda root: {**folder(root), "id_column": "key"}, "'key'"),
    "another kind of file": (lambda root: {"dataset": str(write(root / "x.txt", "a"))}, "x.txt"),
    "a picture outside": (linked_picture, "b/2.ppm"),
    "classes that are links": (linked_classes, "(a, b)"),
    "a name that is not UTF-8": (broken_name, "UTF-8"),
    "a path beside the folder": (parquet_of(lambda root: "../outside.ppm"), "../outside.ppm"),
    "an absolute path": (parquet_of(lambda root: str(root.parent / "outside.ppm")), "outside.ppm"),
    "a path of the current folder": (
        parquet_of(lambda root: os.path.relpath(root.parent / "outside.ppm")),
        "outside.ppm",
    ),
    "a path that is a link": (
        parquet_of(lambda root: linked(root / "link.ppm", root.parent / "outside.ppm")),
        "link.ppm",
    ),
    "a link to a link": (
        parquet_of(
            lambda root: linked(
                root / "b.ppm", root / linked(root / "a.ppm", root.parent / "outside.ppm")
            )
        ),
        "b.ppm",
    ),
    "a linked folder": (
        parquet_of(lambda root: linked(root / "up", root.parent) + "/outside.ppm"),
        "up/outside.ppm",
    ),
    "a NUL in a path": (parquet_of(lambda root: "a\0b"), "'a\\x00b'"),
    **{f"{name} leads out": (placed(name, Path.symlink_to), name) for name in NAMES},
    **{
        f"{name} is a pipe": (placed(name, lambda path, _: os.mkfifo(path)), name) for name in NAMES
    },
    "no torchvision": (lambda root: {"dataset": "torchvision:Flowers10"}, "Flowers10"),
    "no split of torchvision": (lambda root: {**torchvision_of_files(root), "split": "t"}, "'t'"),
}


# Labels, classes and ids, of rows in memory and of listings.


def rows(labels: list[Any], feature: Any, classes: Any = None, **columns: Any) -> Source:
    return lambda root: spec_of(rows_of(labels, feature, **columns), classes)


def ids(values: list[Any], feature: Any) -> Source:
    return rows([0, 1], TWO, sample_id=(values, feature))


def listing(*labels: str, classes: list[str] | None = None, **fields: Any) -> Source:
    found = [Row(f"s{n}", stored(n), label, at=f"F:{n}") for n, label in enumerate(labels, 1)]
    more: dict[str, Any] = {"class_names": lambda: classes} if classes else {}
    return lambda root: spec_of(Listing(found, **more, **fields))


LABELS: dict[str, Cell] = {
    "above the range": (rows([0, 2], TWO), "image 2 of 2"),
    "far above the range": (rows([2**40, 1], TWO), "1099511627776"),
    "below -1": (rows([0, -2], TWO), "-2"),
    "-1": (rows([0, -1], TWO), "1 of 2"),
    "None": (rows([0, None], TWO), "1 of 2"),
    "empty text": (rows(["cat", " "], TEXT), "1 of 2"),
    "no label at all": (rows([None, None], Value("null")), "2 images"),
    "a negative number": (rows([-5, 1], INT), "-5"),
    "floats": (rows([0.0, 1.0], Value("float64")), "'float64'"),
    "lists": (rows([[0], [1]], Sequence(INT)), "'label'"),
    "a number above the declared": (rows([0, 2], INT, ("cat", "dog")), "2"),
    "fewer declared than found": (
        rows([0, 1, 9], ClassLabel(num_classes=10), ("a", "b", "c")),
        "10 classes",
    ),
    "classes in another order": (rows([0, 1], TWO, ("dog", "cat")), "'cat'"),
    "a word that is no class": (rows(["cat", "bird"], TEXT, ("cat", "dog")), "'bird'"),
    "one class of rows": (rows(["cat", "cat"], TEXT), "'cat'"),
    "one declared class": (rows([0], INT, ("cat",)), "'cat'"),
    "equal but for case": (rows(["cat", "Cat"], TEXT), "'Cat'"),
    "equal in words": (rows(["a_b", "a b"], TEXT), "'a_b'"),
    "Unicode's variants": (rows(["caf\u00e9", "cafe\u0301"], TEXT), "caf\u00e9"),
    "an empty class": (rows([0, 1], INT, ("cat", " ")), "' '"),
    "an underscore": (rows(["_", "cat"], TEXT), "'_'"),
    "a control character": (rows(["a\x1b[31m", "cat"], TEXT), "a\\x1b[31m"),
    "a page of text": (rows(["x" * 2000, "cat"], TEXT), "xxx"),
    "ids that are numbers": (ids([1, 2], INT), "image 1"),
    "ids that are truth values": (ids([True, False], Value("bool")), "image 1"),
    "ids of bytes": (ids([b"a", b"b"], Value("binary")), "image 1"),
    "ids that are NaN": (ids([float("nan"), 1.0], Value("float64")), "image 1"),
    "an id that is None": (ids(["a", None], TEXT), "image 2"),
    "an empty id": (ids(["a", ""], TEXT), "image 2"),
    "a long id": (ids(["a", "x" * 10_000], TEXT), "image 2"),
    "an id twice": (ids(["a", "a"], TEXT), "'a'"),
    "a path without a folder": (
        lambda root: spec_of(
            rows_of([0, 1], TWO).map(
                lambda row: {"image": {"bytes": None, "path": "inside.png"}},
                features=rows_of([0, 1], TWO).features,
            )
        ),
        "'inside.png'",
    ),
    "a listing of nothing": (listing(), "given"),
    "an empty label of a listing": (listing("a", " "), "1 of 2"),
    "a large number of a listing": (listing("1", "9" * 19, numbered=True), "F:2"),
    "a listed number that is no class": (
        listing("0", "2", classes=["a", "b"], numbered=True),
        "2",
    ),
    "a listed label that is no class": (listing("a", "c", classes=["a", "b"]), "F:2"),
}


# Rows that are items, in files and plugins of classes.

LISTS = [["a cat", "a dog"], ["a dog", "a cat"]]


def items_in_parquet(root: Path, name: str = "texts") -> Settings:
    values = {"texts": LISTS, "images": [[stored(1)], [stored(2)]]}[name]
    columns = {"image": [stored(1), stored(2)], "label": [0, 1], name: values}
    return {"dataset": str(write_parquet(root / "x.parquet", columns))}


def items_saved(root: Path) -> Settings:
    rows_of([0, 1], INT, texts=(LISTS, Sequence(TEXT))).save_to_disk(str(root / "saved"))
    return {"dataset": str(root / "saved")}


def items_in_lines(root: Path) -> Settings:
    pictures(root, "1.ppm", "2.ppm")
    records = [{"file_name": f"{n + 1}.ppm", "label": n, "texts": LISTS[n]} for n in (0, 1)]
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    return {"dataset": str(write(root / "metadata.jsonl", text))}


def items_in_a_table(root: Path) -> Settings:
    pictures(root, "1.ppm", "2.ppm")
    text = "file_name,label,texts\n1.ppm,0,a cat|a dog\n2.ppm,1,a dog|a cat\n"
    return {"dataset": str(write(root / CSV, text))}


def items_in_a_tar(root: Path) -> Settings:
    members = {f"{n}_ppm": pixels(n + 1) for n in (0, 1)}
    facts = {n: {"label": n, "texts": LISTS[n]} for n in (0, 1)}
    members |= {f"{n}_json": json.dumps(facts[n]).encode() for n in (0, 1)}
    return {"dataset": str(tar(root / "x.tar", **dict(sorted(members.items()))))}


def items_of_a_plugin(root: Path) -> DatasetSpec:
    return spec_of(rows_of([0, 1], INT, texts=(LISTS, Sequence(TEXT))))


ITEMS: dict[str, Cell] = {
    "items in parquet": (items_in_parquet, "'texts'"),
    "lists of images in parquet": (lambda root: items_in_parquet(root, "images"), "'images'"),
    "items saved": (items_saved, "'texts'"),
    "items in lines of JSON": (items_in_lines, "'texts'"),
    "items in a table": (items_in_a_table, "'texts'"),
    "items in a tar": (items_in_a_tar, "'texts'"),
}


@pytest.mark.parametrize("case", ITEMS)
def test_items_are_scored_as_classes_only_if_their_column_of_labels_is_named(
    case: str, tmp_path: Path
) -> None:
    assert_refused(ITEMS[case], tmp_path)
    settings: Any = ITEMS[case][0](tmp_path / "named")
    config = make_config({"backbone": "random", **settings, "label_column": "label"})
    assert load_split(find_dataset(config)).class_names.spellings == ("0", "1")


def test_a_plugin_of_classes_returns_no_items(tmp_path: Path) -> None:
    with refused("'texts'", "items=True", kind=PluginError):
        load_split(DataSource(items_of_a_plugin(tmp_path)))


# Declared data, and items, whose texts are their own.


def birds(*names: str) -> Source:
    def make(root: Path) -> Settings:
        pictures(root / "pictures", *names)
        return declared(root)

    return make


def item(**change: Any) -> Source:
    return lambda root: items(root, **change)


def listed_items(**change: Any) -> Source:
    """Declare items in a file, of which the second has a change."""

    def make(root: Path) -> Settings:
        pictures(root, "1.ppm")
        first = {"image": "1.ppm", "texts": ["a cat", "a dog"], "id": "x", "part": "p"}
        write(root / "items.json", json.dumps([first, {**first, "id": 7, **change}]))
        return {"dataset": str(write(root / "cats.toml", CATS)), "data_dir": str(root)}

    return make


def damaged_items(text: str) -> Source:
    def make(root: Path) -> Any:
        settings = listed_items()(root)
        write(root / "items.json", text)
        return settings

    return make


CATS = (
    'name = "cats"\nsource = "download"\nitems = true\n[item]\nfile = "items.json"\n'
    'images = ["image"]\ntexts = ["texts"]\nid = "id"\ngroup = "part"\nlabel = 0\n'
)
DECLARED: dict[str, Cell] = {
    "an undeclared class": (birds("robin/1.ppm", "house fnch/1.ppm"), "'house finch'"),
    "no declared class": (birds("dog/1.ppm", "cat/1.ppm"), "'birds'"),
    "other numbers": (birds("3/1.ppm", "4/1.ppm"), "3 to 4"),
    "no column of a declaration": (lambda root: declared(root, 'box = "at"\n'), "'at'"),
    "no copy": (lambda root: {**listed(root), "data_dir": None, "split": "train"}, "'train'"),
    "another form": (lambda root: listed(root, "a\n"), "test.txt:1"),
    "a number without a class": (lambda root: listed(root, "a1 3 x\n"), "test.txt:1"),
    "no file of a list": (lambda root: listed(root, "c1 1 x\n"), "test.txt:1"),
    "a file of a list outside": (lambda root: listed(root, "../../x 1 x\n"), "../../x"),
    "a box that is none": (lambda root: boxed(root, "here"), "'here'"),
    "no column of groups": (lambda root: declared_groups(root, ["plaec"]), "'plaec'"),
    "no lines of a list": (lambda root: listed(root, "# none\n"), "test.txt"),
    "no file of a table": (lambda root: tabled(root, "1,gone.jpg,0,2,1,x\n"), f"{CSV}:2"),
    "no class of a table": (lambda root: tabled(root, "1,001.A/1.jpg,7,2,1,x\n"), f"{CSV}:2"),
    "no lines of a table": (lambda root: tabled(root, ""), CSV),
    "no source": (lambda root: {"dataset": "waterbirds"}, "--data-dir"),
    "a box outside": (item(bbox_x=9), "item 1"),
    "a text that is a number": (item(false_caption=3), "record 1"),
    "equal texts": (item(false_caption="the cat on  the MAT"), "item '1'"),
    "no text": (item(true_caption=" "), "item '1'"),
    "class names of items": (
        lambda root: {**items(root), "class_names": str(root / "n.txt")},
        "--class-names",
    ),
    **{
        f"an item with {change}": (listed_items(**change), named)
        for named, change in (
            *(("id", {"id": None}), ("id", {"id": [1]}), ("group", {"part": [1]})),
            *(("3", {"texts": ["a cat", 3]}), ("a dog", {"texts": ["a cat", ["a dog"]]})),
            *(("dog", {"texts": ["a cat", "a \x1bdog"]}), ("image", {"image": 3})),
        )
    },
    **{
        f"items: {text[:9]}": (damaged_items(text), "items.json")
        for text in ("3", "[" * 100_000, '{"a": 1, "a": 2}', "[1]")
    },
}

CELLS = {**FOLDERS, **LABELS, **DECLARED}


@pytest.mark.parametrize("case", CELLS)
def test_data_that_is_refused(case: str, tmp_path: Path) -> None:
    if "torchvision" in case:
        pytest.importorskip("torchvision")
    assert_refused(CELLS[case], tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        [{"image": 1}],
        (Row(label, stored(1), label) for label in "ab"),
        [Row("a", 3, "a")],  # type: ignore[arg-type]
        [Row("a", stored(1), "a", kept={"k": "1"}), Row("b", stored(2), "b")],
    ],
    ids=["another type", "a generator", "no image", "a column in one row"],
)
def test_a_plugin_that_returns_something_else(wrong: Any, tmp_path: Path) -> None:
    with refused("load()", kind=PluginError):
        load_split(DataSource(spec_of(Listing(wrong))))
