"""Tables of data that cannot be read as they were meant: each format × damage, refused by name."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.data_sources import (
    Cell,
    Settings,
    Source,
    assert_refused,
    csv_alone,
    pictures,
    saved,
    stored,
    table,
    write,
)
from helpers.given import write_parquet

pytestmark = pytest.mark.filterwarnings("ignore::bench.errors.BenchWarning")
DIGITS = "9" * 5000


# Tables beside images.


def lines(text: str, name: str = "metadata.csv", **more: Any) -> Source:
    return lambda root: {**table(root, text, name), **more}


def contradicting(root: Path) -> Settings:
    made_here = pictures(root / "x", "cat/1.ppm", "cat/2.ppm", "dog/1.ppm")
    write(made_here / CSV, "file,label\ncat/1.ppm,dog\ncat/2.ppm,cat\ndog/1.ppm,dog\n")
    return {"dataset": str(made_here)}


def absent_table(root: Path) -> Settings:
    return {"dataset": str(pictures(root / "x", "1.ppm")), "labels": str(root / "no.csv")}


def keyed(second: str) -> Source:
    """Write two JSON lines, whose second has this key as its id."""
    text = "\n".join(
        f'{{"file_name": "{n}.ppm", "label": {n}, "key": {key}}}'
        for n, key in ((1, '"a"'), (2, second))
    )
    return lines(text, JSONL, id_column="key")


CSV, JSONL = "metadata.csv", "metadata.jsonl"
MANY = ",".join(f"c{n}" for n in range(100_000))
KEYS = "\n".join(json.dumps({"file": "1.ppm", "label": n, f"k{n}": n}) for n in range(2_000))
TABLES: dict[str, Cell] = {
    "no table": (absent_table, "no.csv"),
    "labels of a file": (
        lambda root: {**csv_alone(root), "labels": str(root / "own.csv")},
        "--labels",
    ),
    "no column of files": (lines("a,label\n1.ppm,x\n"), "--image-column"),
    "no column of labels": (lines("file,b\n1.ppm,x\n"), "--label-column"),
    "semicolons": (lines("file;label\n1.ppm;x\n"), "file;label"),
    "no named column": (lines("file,label\n1.ppm,x\n", label_column="kind"), "'kind'"),
    "a missing file": (lines("file,label\n9.ppm,x\n"), f"{CSV}:2"),
    "a file twice": (lines("file,label\n1.ppm,x\n./1.ppm,y\n"), f"{CSV}:3"),
    "a file outside": (lines("file,label\n../x.ppm,x\n"), f"{CSV}:2"),
    "too many columns": (lines(f"file,label,{MANY}\n"), "100,002"),
    "too many keys": (lines(KEYS, JSONL), f"{JSONL}:999"),
    "no name": (lines("file,label\n,x\n"), "'file'"),
    "no lines": (lines("file,label\n"), CSV),
    "one class in a table": (lines("file,label\n1.ppm,x\n2.ppm,x\n"), "'x'"),
    "a label missing": (lines("file,label\n1.ppm,x\n2.ppm,\n3.ppm,y\n"), "1 of 3"),
    "all labels missing": (lines("file,label\n1.ppm,\n2.ppm,-1\n", skip_unlabelled=True), "2 im"),
    "a table against folders": (contradicting, f"{CSV}:2"),
    "a large number": (lines(f"file,label\n1.ppm,3\n2.ppm,{'9' * 19}\n"), f"{CSV}:3"),
    "5,000 digits": (lines(f"file,label\n1.ppm,{DIGITS}\n2.ppm,1\n"), f"{CSV}:2"),
    "a negative number in a table": (lines("file,label\n1.ppm,-3\n2.ppm,1\n"), "-3"),
    "an empty key": (lines("file,label,key\n1.ppm,a,\n", id_column="key"), "'key'"),
    "a key twice": (lines("file,label,key\n1.ppm,a,k\n2.ppm,b,k\n", id_column="key"), "'k'"),
    "the same words": (lines("file,label\n1.ppm,a_b\n2.ppm,a b\n"), "'a_b'"),
    "a line that is a list": (lines('["1.ppm"]', JSONL), f"{JSONL}:1"),
    "a number as file": (lines('{"file_name": [1], "label": "a"}', JSONL), f"{JSONL}:1"),
    **{f"the id {key}": (keyed(key), f"{JSONL}:2") for key in ("[1]", "true", "1.5", "null")},
}


# Parquet, saved datasets, and what they state of their columns.


def parquet(image_column: str | None = None, **columns: Any) -> Source:
    whole = {"image": [stored(1), stored(2)], "label": ["a", "b"], **columns}

    def make(root: Path) -> Settings:
        write_parquet(root / "p/t-0.parquet", {k: v for k, v in whole.items() if v is not None})
        return {"dataset": str(root / "p"), "image_column": image_column}

    return make


def two_orders(root: Path) -> Settings:
    for n, classes in enumerate((["a", "b"], ["b", "a"])):
        write_parquet(root / f"p/t-{n}.parquet", {"image": [stored(n)], "label": [n]}, classes)
    return {"dataset": str(root / "p")}


def stating(stated: bytes) -> Source:
    """Write parquet with this metadata, as `datasets` has it."""

    def make(root: Path) -> Settings:
        schema = pa.schema({"image": datasets.Image.pa_type, "label": pa.int64()})
        images = {"image": [stored(1), stored(2)], "label": [0, 1]}
        rows = pa.table(images, schema=schema).replace_schema_metadata({"huggingface": stated})
        pq.write_table(rows, root / "x.parquet")
        return {"dataset": str(root / "x.parquet")}

    return make


def features(**stated: Any) -> Source:
    return stating(json.dumps({"info": {"features": stated}}).encode())


def bytes_of(name: str, content: bytes) -> Source:
    def make(root: Path) -> Settings:
        (root / name).write_bytes(content)
        return {"dataset": str(root / name)}

    return make


def state(content: Any) -> Source:
    """Damage the file that says of what a saved dataset consists."""

    def make(root: Path) -> Settings:
        settings = saved(root)
        (root / "saved/state.json").write_text(json.dumps(content))
        return settings

    return make


CLASSES = {"names": ["cat", "dog"], "_type": "ClassLabel"}
PARQUET: dict[str, Cell] = {
    "no parquet label": (parquet(label=None), "--label-column"),
    "no parquet image": (parquet(image=None), "--image-column"),
    "no named parquet column": (parquet(image_column="nope"), "'nope'"),
    "labels of floats": (parquet(label=[0.5, 1.5]), "'label'"),
    "images of numbers": (parquet(image=[1, 2]), "'image'"),
    "a null id": (parquet(sample_id=["a", None]), "image 2"),
    "a null label": (parquet(label=["a", None]), "1 of 2"),
    "classes in two orders": (two_orders, "t-1.parquet"),
    "no file of a pattern": (lambda root: {"dataset": f"{root}/{{1..3}}.parquet"}, "1.parquet"),
    "an empty file": (bytes_of("x.parquet", b""), "x.parquet"),
    "nonsense": (bytes_of("x.parquet", b"PAR1 nonsense"), "x.parquet"),
    "zeros": (bytes_of("x.parquet", b"PAR1" + bytes(100) + b"PAR1"), "x.parquet"),
    "a zip": (bytes_of("x.zip", b""), "x.zip"),
    "equal names": (features(label={**CLASSES, "names": ["cat", "cat"]}), "'label'"),
    "another type": (features(label={**CLASSES, "_type": "Klass"}), "'label'"),
    "numbers as names": (features(label={**CLASSES, "names": [1, 2]}), "'label'"),
    "no table of a column": (features(label=3), "'label'"),
    "names of another column": (features(y=CLASSES), "'y'"),
    **{
        f"the metadata {stated[:9]!r}": (stating(stated), "'label'")
        for stated in (b"{", b"\xff", b"[" * 100_000, b'{"info": 3}', b'{"info": null}')
    },
    "no split of a saved one": (lambda root: {**saved(root), "split": "test"}, "'test'"),
    "a saved file outside": (state({"_data_files": [{"filename": "../x.arrow"}]}), "saved"),
    "an absolute saved file": (
        lambda root: state({"_data_files": [{"filename": f"{root}/x.arrow"}]})(root),
        "saved",
    ),
    **{
        f"the state {content}": (state(content), "saved")
        for content in (
            *({"_data_files": files} for files in ([{"filename": "no"}], [{"filename": 3}], [])),
            *([], {"_data_files": "x"}),
        )
    },
}


CELLS = {**TABLES, **PARQUET}


@pytest.mark.parametrize("case", CELLS)
def test_tables_that_are_refused(case: str, tmp_path: Path) -> None:
    assert_refused(CELLS[case], tmp_path)
