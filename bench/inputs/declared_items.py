"""Declared datasets of items: records that name images and their texts, from JSON or a table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import StoredImage
from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.boxes import cut
from bench.inputs.parsing import name_of, parse_json
from bench.machine.cache import cache_dir, made_once
from bench.machine.files import inside, read_bytes

if TYPE_CHECKING:
    import datasets

ROWS = 100  # written at a time
Record = Mapping[str, Any]


def load_items(spec: DatasetSpec, data_dir: str | None, table: Any = None) -> datasets.Dataset:
    """Return the items of a declared dataset with the columns of the contract.

    Args:
        spec: the declaration; its `item` says which fields are what.
        data_dir: the original download, with its JSON files.
        table: instead of JSON, the rows of a source: a `datasets.Dataset`.

    Raises:
        UserError: a file or a field is missing; with file and record.
    """
    import datasets

    said = spec.item
    where = f"Dataset {spec.name!r}"
    records: Iterator[tuple[str, str | None, Record]]
    if table is None:
        folder = Path(str(data_dir))
        records = _records(folder, said)
    else:
        folder = Path()
        records = ((str(row), None, record) for row, record in enumerate(table))
    made = [_item(key, part, record, said, folder, where) for key, part, record in records]
    if not made:
        raise UserError(f"{where} holds no items.")
    several = len(said["images"]) > 1
    image = datasets.Image()
    several_of = getattr(datasets, "List", lambda feature: [feature])  # before 4.0 a list of one
    features: dict[str, Any] = {
        ("images" if several else "image"): several_of(image) if several else image,
        "texts": several_of(datasets.Value("string")),
        "sample_id": datasets.Value("string"),
    }
    right = "pairing" if several else "label"
    number = datasets.Value("int64")
    features[right] = several_of(number) if several else number
    if any(item.get("group") is not None for item in made):
        features["group"] = datasets.Value("string")
    for item in made:
        item["image"] = item.pop("images") if several else item["images"][0]
        if several:
            item["images"] = item.pop("image")
    kept = [{name: item.get(name) for name in features} for item in made]
    if "box" in said:
        return _boxed(kept, made, datasets.Features(features), where)
    return datasets.Dataset.from_list(kept, features=datasets.Features(features))


def _records(folder: Path, said: Record) -> Iterator[tuple[str, str | None, Record]]:
    """Yield key, group and record of the JSON files: lists, or objects of records."""
    files: Mapping[str, str] = said.get("files") or {"": said["file"]}
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
    key: str, part: str | None, record: Record, said: Record, folder: Path, where: str
) -> dict[str, Any]:
    at = f"{where}, record {key}"
    images = [_field(record, name, at) for name in said["images"]]
    texts: list[Any] = []
    for name in said["texts"]:
        value = _field(record, name, at)
        texts += value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"{at}: {quoted(text)} stands among its texts, and is none.")
    group = _field(record, said["group"], at) if "group" in said else part
    named = [isinstance(image, str) for image in images]  # else a source holds them
    if any(named) != all(named) or not all(isinstance(i, str | dict | None) for i in images):
        raise UserError(f"{at}: one of its images is not the name of a file: {quoted(images)}.")
    if all(named):
        root = folder / str(said.get("folder", ""))
        images = [str(inside(folder, str(root / name))) for name in images]
    if "id" in said:
        key = name_of(_field(record, said["id"], at), "id", f"{at}:")
    return {
        "images": images,
        "texts": texts,
        "label": said.get("label", 0),
        "pairing": list(said.get("pairing", ())),
        "group": None if group is None else name_of(group, "group", f"{at}:"),
        "sample_id": key,
        "box": [_field(record, name, at) for name in said["box"]] if "box" in said else None,
    }


def _field(record: Record, name: str, at: str) -> Any:
    if name not in record:
        raise UserError(
            f"{at}: there is no {name!r}.{did_you_mean(name, record)} It has:"
            f" {quoted(', '.join(map(str, record)))[1:-1]}."
        )
    return record[name]


def _boxed(
    kept: Sequence[dict[str, Any]], made: Sequence[Record], features: Any, where: str
) -> datasets.Dataset:
    """Return the items with their images cropped, from an Arrow file that is made once."""
    import datasets
    import pyarrow as pa

    state = hashlib.sha256()
    for item, record in zip(kept, made, strict=True):
        path = Path(item["image"] or "")
        facts = path.stat() if path.exists() else None
        stamp = facts and (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        state.update(repr((item, record["box"], stamp)).encode(errors="surrogateescape"))
    target = cache_dir("boxes") / f"{state.hexdigest()[:32]}.arrow"

    def rows(start: int) -> Iterator[dict[str, Any]]:
        for item, record in zip(
            kept[start : start + ROWS], made[start : start + ROWS], strict=True
        ):
            image = StoredImage(bytes=None, path=item["image"])
            at = f"{where}, item {item['sample_id']}"
            yield {**item, "image": cut(image, record["box"], at)}

    schema = features.arrow_schema
    starts = range(0, len(kept), ROWS)
    made_once(
        target,
        schema,
        lambda: (pa.Table.from_pylist(list(rows(start)), schema=schema) for start in starts),
    )
    return datasets.Dataset.from_file(str(target))
