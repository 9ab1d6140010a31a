"""Tables that came with data: nothing in them vanishes or becomes something else without a word."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.command import bench
from helpers.given import make_folder, picture

from bench.discovery.declared import load_spec
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path, "1.png", "2.png")


def load(path: Path, **parameters: Any) -> Split:
    spec = load_plugins().datasets.get("folder")
    return load_split(DataSource(spec, str(path), parameters))


WRONG: dict[str, tuple[str, str, str]] = {
    "a vertical tab": ("csv", "1.png,ca\x0bt\n2.png,dog\n", ":2: the label 'ca.*has control"),
    "one at the end": ("csv", "1.png,cat\x0b\n2.png,dog\n", ":2: the label .* has control"),
    "a line separator": ("csv", "1.png,ca\u2028t\n2.png,dog\n", ":2: the label .* has control"),
    "a next line": ("csv", "1.png,ca\x85t\n2.png,dog\n", ":2: the label .* has control"),
    "a file separator": ("csv", "1.png,cat\n2.png\x1c,dog\n", ":3: the file_name .* has control"),
    "5,000 digits in CSV": ("csv", f"1.png,{'9' * 5000}\n2.png,1\n", ":2: the label .* too large"),
    "a quote that does not end": ("csv", '1.png,"cat\n2.png,dog\n', "is not a CSV file"),
    "a list as label": ("jsonl", '{"file_name": "1.png", "label": ["cat"]}', ":1: the label is"),
    "NaN as label": ("jsonl", '{"file_name": "1.png", "label": NaN}', ":1: .*NaN is not a num"),
    "half a number": (
        "jsonl",
        '{"file_name": "1.png", "label": 1.5}',
        ":1: the label is 1.5; expected a te",
    ),
    "a number as file": ("jsonl", '{"file_name": [1], "label": "a"}', ":1: the file_name is"),
    "a key twice": ("jsonl", '{"file_name": "1.png", "label": "a", "label": "b"}', "occurs twice"),
    "half a pair": ("jsonl", '{"file_name": "1.png", "label": "\\ud800"}', "is not Unicode text"),
    "5,000 digits": (
        "jsonl",
        f'{{"file_name": "1.png", "label": {"9" * 5000}}}',
        ":1: this is not",
    ),
    "deep": ("jsonl", "[" * 100_000, ":1: this is not JSON: it is nested too deeply"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_become_something_else_is_refused(case: str, folder: Path) -> None:
    kind, text, said = WRONG[case]
    head = "file_name,label\n" if kind == "csv" else ""
    (folder / f"metadata.{kind}").write_text(head + text, "utf-8")
    with pytest.raises(UserError, match=said):
        load(folder)


def test_ids_are_texts_or_whole_numbers(folder: Path) -> None:
    def write(*ids: str) -> None:
        lines = [
            f'{{"file_name": "{n}.png", "label": {n % 2}, "key": {key}}}'
            for n, key in enumerate(ids, 1)
        ]
        (folder / "metadata.jsonl").write_text("\n".join(lines))

    write('"a"', "7")
    assert load(folder, id_column="key").sample_ids == ("a", "7")
    for wrong in ("[1]", "true", "1.5"):
        write('"a"', wrong)
        with pytest.raises(UserError, match=r":2: the key is .*; expected a text"):
            load(folder, id_column="key")
    write('"a"', "null")
    with pytest.raises(UserError, match=r":2: .*'key'"):
        load(folder, id_column="key")


def test_many_columns_and_keys_are_refused_before_any_work(folder: Path) -> None:
    names = ",".join(f"c{n}" for n in range(100_000))
    (folder / "metadata.csv").write_text(f"file_name,label,{names}\n")
    done = bench("prompts", folder)
    assert done.code == 2 and "100,002 columns; at most 1,000 are read" in done.err
    (folder / "metadata.csv").unlink()
    lines = (json.dumps({"file_name": "1.png", "label": n, f"k{n}": n}) for n in range(20_000))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    done = bench("prompts", folder)
    assert done.code == 2 and ":999: more than 1,000 different keys" in done.err


def test_a_table_that_is_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "labels.csv")
    done = bench("prompts", folder, "--labels", folder / "labels.csv")
    assert done.code == 2 and "is not a regular file" in done.err


@pytest.mark.parametrize("part", ["", "test/"])
def test_a_table_that_leads_out_of_the_folder_is_not_read(part: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", f"{part}a/1.png", f"{part}b/2.png")
    (tmp_path / "out.csv").write_text("a secret\n")
    link = folder / part / "metadata.csv"
    link.symlink_to(tmp_path / "out.csv")
    done = bench("prompts", folder)
    assert done.code == 2 and "leads out of the folder" in done.err and "secret" not in done.err
    link.unlink()
    os.mkfifo(link)
    done = bench("prompts", folder)
    assert done.code == 2 and "is not a regular file" in done.err


LABEL = {"names": ["cat", "dog"], "_type": "ClassLabel"}
METADATA: dict[str, Any] = {
    "equal names": {**LABEL, "names": ["cat", "cat"]},
    "another type": {**LABEL, "_type": "Klass"},
    "numbers as names": {**LABEL, "names": [1, 2]},
    "no table": 3,
}


def write_stated(folder: Path, stated: bytes, labels: pa.Array) -> Path:
    schema = pa.schema({"image": datasets.Image.pa_type, "label": labels.type})
    table = pa.table({"image": [picture(1), picture(2)], "label": labels}, schema=schema)
    table = table.replace_schema_metadata({"huggingface": stated})
    pq.write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


@pytest.mark.parametrize("case", METADATA)
def test_class_names_are_not_lost(case: str, tmp_path: Path) -> None:
    stated = json.dumps({"info": {"features": {"label": METADATA[case]}}}).encode()
    path = write_stated(tmp_path, stated, pa.array([0, 1]))
    with pytest.raises(UserError, match="'label'"):
        load(path)


def test_metadata_of_another_form_is_refused_and_that_of_other_columns_costs_nothing(
    tmp_path: Path,
) -> None:
    for stated in (b"{", b"\xff", b"[" * 100_000, b'{"info": 3}', b'{"info": null}'):
        with pytest.raises(UserError, match="'label' cannot be read"):
            load(write_stated(tmp_path, stated, pa.array([0, 1])))
    features = {"label": LABEL, "image": {"_type": "Hologram"}, "other": 3}
    stated = json.dumps({"info": {"features": features}}).encode()
    for kind in (pa.int64(), pa.int32(), pa.uint8()):
        assert load(write_stated(tmp_path, stated, pa.array([0, 1], kind))).classes == (
            "cat",
            "dog",
        )
    of_another = json.dumps({"info": {"features": {"y": LABEL}}}).encode()
    with pytest.raises(UserError, match="'y'"):
        load(write_stated(tmp_path, of_another, pa.array([0, 1])))
    assert load(write_stated(tmp_path, of_another, pa.array(["a", "b"]))).classes == ("a", "b")


ITEMS: dict[str, tuple[dict[str, Any], str]] = {
    "an id that is null": ({"id": None}, "the id is None; expected a text or a whole number"),
    "an id that is a list": ({"id": [1]}, r"the id is \[1\]; expected a text or a whole number"),
    "a number as text": ({"texts": ["a cat", 3]}, "expected a text, got 3"),
    "a list as text": ({"texts": ["a cat", ["a dog"]]}, "expected a text, got"),
    "an escape code": ({"texts": ["a cat", "a \x1bdog"]}, "has control characters"),
    "a number as image": ({"image": 3}, "expected names of image files"),
    "a group that is a list": ({"part": [1]}, "the group is"),
}


@pytest.mark.parametrize("case", ITEMS)
def test_items_of_other_types_are_refused(case: str, folder: Path) -> None:
    change, said = ITEMS[case]
    record = {"image": "1.png", "texts": ["a cat", "a dog"], "id": "x", "part": "p"}
    (folder / "items.json").write_text(json.dumps([record, {**record, "id": 7, **change}]))
    (folder / "cats.toml").write_text(
        'name = "cats"\nsource = "download"\nitems = true\n[item]\nfile = "items.json"\n'
        'images = ["image"]\ntexts = ["texts"]\nid = "id"\ngroup = "part"\n'
    )
    with pytest.raises(UserError, match=said):
        load_split(DataSource(load_spec(folder / "cats.toml"), str(folder)))
    (folder / "items.json").write_text(json.dumps([record, {**record, "id": 7}]))
    split = load_split(DataSource(load_spec(folder / "cats.toml"), str(folder)))
    assert split.sample_ids == ("x", "7")
    for wrong in ("3", "[" * 100_000, '{"a": 1, "a": 2}', "[1]"):
        (folder / "items.json").write_text(wrong)
        with pytest.raises(UserError, match=r"items\.json"):
            load_split(DataSource(load_spec(folder / "cats.toml"), str(folder)))
