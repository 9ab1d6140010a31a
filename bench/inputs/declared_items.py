"""Declared datasets of items: records that name images and their texts, from JSON or a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import StoredImage
from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.boxes import cut
from bench.inputs.parsing import name_of, parse_json
from bench.inputs.rows import list_of
from bench.machine.cache import cache_dir, made_once
from bench.machine.files import inside, read_bytes

if TYPE_CHECKING:
    import datasets

ROWS = 100  # written at a time
Record = Mapping[str, Any]


def load_items(spec: DatasetSpec, data_dir: str | None, table: Any = None) -> datasets.Dataset:
    """Return the items of a declared dataset with the columns of the contract.

    Args:
        spec: the declaration; its `item` maps fields of the records to columns.
        data_dir: the original download, with its JSON files.
        table: instead of JSON, the rows of a source: a `datasets.Dataset`.

    Raises:
        UserError: a file or a field is missing; with file and record.
    """
    import datasets

    where = f"Dataset {spec.name!r}"
    folder = Path(str(data_dir)) if table is None else Path()
    records: Iterable[tuple[str, str | None, Record]]
    if table is None:
        records = _records(folder, spec.item)
    else:
        records = ((str(row), None, record) for row, record in enumerate(table))
    items = [_item(key, part, record, spec.item, folder, where) for key, part, record in records]
    if not items:
        raise UserError(f"{where} holds no items.")
    text, number, image = datasets.Value("string"), datasets.Value("int64"), datasets.Image()
    features: dict[str, Any] = {"image": image, "texts": list_of(text), "sample_id": text}
    features["label"] = number
    if len(spec.item["images"]) > 1:
        features = {"images": list_of(image), "texts": list_of(text), "sample_id": text}
        features["pairing"] = list_of(number)
    if any(item["group"] is not None for item in items):
        features["group"] = text
    rows = [{name: item[name] for name in features} for item in items]
    if "box" in spec.item:
        boxes = [item["box"] for item in items]
        return _boxed(rows, boxes, datasets.Features(features), where)
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def _records(folder: Path, fields: Record) -> Iterator[tuple[str, str | None, Record]]:
    """Yield key, group and record of the JSON files: lists, or objects of records."""
    files: Mapping[str, str] = fields.get("files") or {"": fields["file"]}
    for part, name in files.items():
        path = inside(folder, name)
        try:
            content = parse_json(read_bytes(path))
            if not isinstance(content, dict | list):
                raise ValueError("a list or an object of records is wanted")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name} is no JSON file: {str(error)[:200]}.") from None
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, record in pairs:
            if not isinstance(record, dict):
                raise UserError(f"{path}: the record {key} is no JSON object.")
            yield f"{part}/{key}" if part else str(key), part or None, record


def _item(
    key: str, part: str | None, record: Record, fields: Record, folder: Path, where: str
) -> dict[str, Any]:
    """Return the columns of an item, and its `box`, of a record."""
    at = f"{where}, record {key}"
    images = [_field(record, name, at) for name in fields["images"]]
    texts: list[Any] = []
    for name in fields["texts"]:
        value = _field(record, name, at)
        texts += value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"{at}: {quoted(text)} stands among its texts, and is none.")
    group = _field(record, fields["group"], at) if "group" in fields else part
    named = [isinstance(image, str) for image in images]  # else a source holds them
    if any(named) != all(named) or not all(isinstance(i, str | dict | None) for i in images):
        raise UserError(f"{at}: one of its images is not the name of a file: {quoted(images)}.")
    if all(named):
        root = folder / str(fields.get("folder", ""))
        images = [str(inside(folder, str(root / name))) for name in images]
    if "id" in fields:
        key = name_of(_field(record, fields["id"], at), "id", f"{at}:")
    return {
        "images": images,
        "image": images[0],
        "texts": texts,
        "label": fields.get("label", 0),
        "pairing": list(fields.get("pairing", ())),
        "group": None if group is None else name_of(group, "group", f"{at}:"),
        "sample_id": key,
        "box": [_field(record, name, at) for name in fields.get("box", ())],
    }


def _field(record: Record, name: str, at: str) -> Any:
    if name not in record:
        raise UserError(
            f"{at}: there is no {name!r}.{did_you_mean(name, record)} It has:"
            f" {quoted(', '.join(map(str, record)))[1:-1]}."
        )
    return record[name]


def _boxed(
    items: Sequence[dict[str, Any]], boxes: Sequence[Any], features: Any, where: str
) -> datasets.Dataset:
    import datasets
    import pyarrow as pa

    state = hashlib.sha256()
    for item, box in zip(items, boxes, strict=True):
        path = Path(item["image"] or "")
        facts = path.stat() if path.exists() else None
        stamp = facts and (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        state.update(repr((item, box, stamp)).encode(errors="surrogateescape"))
    target = cache_dir("boxes") / f"{state.hexdigest()[:32]}.arrow"
    schema = features.arrow_schema

    def cropped() -> Iterator[Any]:
        for start in range(0, len(items), ROWS):
            batch = []
            for item, box in zip(items[start : start + ROWS], boxes[start:], strict=False):
                image = StoredImage(bytes=None, path=item["image"])
                at = f"{where}, item {item['sample_id']}"
                batch.append({**item, "image": cut(image, box, at)})
            yield pa.Table.from_pylist(batch, schema=schema)

    made_once(target, schema, cropped)
    return datasets.Dataset.from_file(str(target))
