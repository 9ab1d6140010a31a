"""WebDataset tars: files of one name, up to the first dot, are one image and its label.

Only images, `cls`, `json` and `txt` are read, none of which runs code; all else is skipped.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from bench.errors import UserError, quoted
from bench.inputs.files import expand
from bench.inputs.rows import rows_of
from bench.machine.files import inside, open_regular
from bench_plugins.datasets._arrow import converted
from bench_plugins.datasets._columns import ANY, SAMPLE_ID, Wanted
from bench_plugins.datasets._listing import IMAGES
from bench_plugins.datasets._splits import SPLITS, splits_of

ROWS = 100  # written at a time
DIGITS = 18  # of a label that is a number
END = 512  # bytes of a block; two of zeros end a tar
LABELS = ("label", "class", "cls")  # keys of a json file that hold the label
CLASS_NAMES = "classnames.txt"  # of clip-benchmark's tars: one class per line

Sample = dict[str, bytes]  # suffix → content


def load_tars(source: Path, split: str | None, wanted: Wanted = ANY) -> datasets.Dataset:
    """Return a split of a tar, of a folder of them, or of a pattern such as `{000..031}.tar`.

    An image's label is its `cls` file, a key of its `json` file (`label`, `class`, or the column
    that is named), or its `txt` file. Its id is its name in the tar, or the json key that is named.

    Raises:
        UserError: a tar is cut off or damaged, or an image has no label; with the tar's name.
    """
    pattern = "{" in source.name and not source.exists()
    found = {"all": expand(str(source))} if pattern else splits_of(source, ".tar")
    chosen = split or next(name for name in (*SPLITS, "all") if name in found)
    if chosen not in found:
        raise UserError(f"{source} has no split {quoted(split)}; it has: {', '.join(found)}.")
    root = source if source.is_dir() else source.parent
    files = [inside(root, str(path)) for path in found[chosen]]
    text = datasets.Value("string")
    kept = dict.fromkeys(wanted.keep, text)
    features = datasets.Features(
        {"image": datasets.Image(), "label": text, SAMPLE_ID: text, **kept}
    )
    schema = features.arrow_schema

    def tables() -> Iterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        for path in files:
            for row in _rows(path, wanted):
                rows.append(row)
                if len(rows) == ROWS:
                    yield pa.Table.from_pylist(rows, schema=schema)
                    rows = []
        yield pa.Table.from_pylist(rows, schema=schema)

    arrow = str(converted("tars", files, repr(wanted), schema, tables))
    table = datasets.Dataset.from_file(arrow).data.table
    labels = table["label"].to_pylist()
    if all(label.removeprefix("-").isdecimal() for label in labels):
        if too_long := [label for label in labels if len(label) > DIGITS]:
            raise UserError(f"{source}: the label {quoted(too_long[0])} is out of range.")
        features["label"], values = _numbers([int(label) for label in labels], root, files[0])
        table = table.set_column(1, "label", pa.array(values, pa.int64()))
    table = _with_unique_ids(table, files)
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    info = datasets.DatasetInfo(features=features, download_checksums={arrow: {}})
    return rows_of(table, info, chosen)


def _numbers(labels: list[int], root: Path, first: Path) -> tuple[Any, list[int]]:
    """Return what numbers mean: lines of `classnames.txt`, where there is one."""
    for folder in (root, first.parent, root.parent):
        if (folder / CLASS_NAMES).is_file():
            lines = (folder / CLASS_NAMES).read_text("utf-8", "replace").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            return datasets.ClassLabel(names=names), labels
    return datasets.Value("int64"), labels


def _with_unique_ids(table: pa.Table, files: Sequence[Path]) -> pa.Table:
    """Put the tar's name before the names in it, where two tars use the same ones."""
    ids = table[SAMPLE_ID].to_pylist()
    short = [one.partition(":")[2] for one in ids]
    chosen = short if len(set(short)) == len(short) else ids
    position = table.column_names.index(SAMPLE_ID)
    return table.set_column(position, SAMPLE_ID, pa.array(chosen, pa.string()))


def _rows(path: Path, wanted: Wanted) -> Iterator[dict[str, Any]]:
    for key, sample in read_tar(path):
        images = [suffix for suffix in sample if f".{suffix}" in IMAGES]
        if not images:
            continue  # a caption, or a file of its own such as a list of classes
        facts = _facts(path, key, sample)
        own_id = key if wanted.id is None else _fact(facts, wanted.id, path, key)
        yield {
            "image": {"bytes": sample[images[0]], "path": None},
            "label": _label(path, key, sample, facts, wanted),
            SAMPLE_ID: f"{path.name}:{own_id}",
            **{name: _fact(facts, name, path, key) for name in wanted.keep},
        }


def _facts(path: Path, key: str, sample: Sample) -> dict[str, Any]:
    if "json" not in sample:
        return {}
    try:
        facts = json.loads(sample["json"])
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {key}.json is not JSON: {str(error)[:200]}.") from None
    return facts if isinstance(facts, dict) else {"label": facts}


def _fact(facts: dict[str, Any], name: str, path: Path, key: str) -> str:
    if name not in facts:
        raise UserError(f"{path}: {key}.json has no key {name!r}.")
    return str(facts[name])


def _label(path: Path, key: str, sample: Sample, facts: dict[str, Any], wanted: Wanted) -> str:
    if wanted.label is not None:
        _fact(facts, wanted.label, path, key)
    name = wanted.label or next((name for name in LABELS if name in facts), None)
    if "cls" in sample and wanted.label is None:
        label = sample["cls"].decode("utf-8", "replace")
    elif name is not None:
        value = facts[name]
        if isinstance(value, dict | list):
            raise UserError(
                f"{path}: in {key}.json the {name} is {quoted(value)}; a text or a number is"
                " wanted."
            )
        label = "" if value is None else str(value)
    else:
        label = sample.get("txt", b"").decode("utf-8", "replace")
    if not label.strip():
        raise UserError(
            f"{path}: the image {quoted(key)} has no label: {key}.cls, or {key}.json with a key"
            " label. --label-column names another key."
        )
    return label.strip()


def read_tar(path: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of a tar: the name, and suffix → content of the files that are read.

    Raises:
        UserError: it is no tar, or is cut off.
    """
    key: str | None = None
    sample: Sample = {}
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name, suffix = _split(member.name)
                if not member.isreg() or name.rpartition("/")[2].startswith("."):
                    continue
                if f".{suffix}" not in IMAGES and suffix not in ("cls", "json", "txt"):
                    continue
                if key is not None and name != key:
                    yield key, sample
                    sample = {}
                key = name
                content = tar.extractfile(member)
                sample[suffix] = content.read() if content else b""
                if len(sample[suffix]) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
            file.seek(tar.offset)
            if not file.read(END):
                raise tarfile.ReadError("the blocks that end a tar are missing")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not a whole tar file, or is cut off: {error}.") from None
    if key is not None:
        yield key, sample


def _split(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot of its last part, and its last suffix."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffixes = base.partition(".")
    return folder + slash + stem, suffixes.rpartition(".")[2].lower()
