"""Tables of images: which columns hold the image and the label, whatever they are called."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.features.features import generate_from_arrow_type

from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.rows import settle

SAMPLE_ID = "sample_id"


@dataclass(frozen=True)
class Wanted:
    """The columns that the user or a declaration names."""

    image: str | None = None  # the images'; None: `image`, or the only one that holds images
    label: str | None = None
    """The labels'; None: `label`, the only `ClassLabel`, or the only text or numbers."""
    id: str | None = None  # the sample ids'; None: `sample_id`, where there is one
    keep: tuple[str, ...] = ()  # others that the rows keep, such as groups or boxes


ANY = Wanted()


@dataclass(frozen=True)
class ImageColumns:
    """What a table's columns are called, and what they hold."""

    image: str
    label: str
    label_feature: Any
    id: str | None
    kept: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        ids = [self.id] if self.id else []
        return [self.image, self.label, *ids, *(name for name, _ in self.kept)]

    @property
    def features(self) -> datasets.Features:
        """What the converted table holds."""
        ids = {SAMPLE_ID: datasets.Value("string")} if self.id else {}
        own = {"image": datasets.Image(), "label": self.label_feature, **ids}
        return datasets.Features({**own, **dict(self.kept)})


def labelled_images(
    images: Sequence[Any],
    labels: Sequence[str | int],
    ids: Sequence[str],
    label: Any,
    split: str | None,
    kept: Mapping[str, Sequence[str]] | None = None,
) -> datasets.Dataset:
    """Return a dataset of images, labels with the feature `label`, sample ids and kept texts."""
    text, kept = datasets.Value("string"), kept or {}
    features = {"image": datasets.Image(), "label": label, SAMPLE_ID: text}
    return datasets.Dataset.from_dict(
        {"image": images, "label": labels, SAMPLE_ID: ids, **kept},
        features=datasets.Features({**features, **dict.fromkeys(kept, text)}),
        split=None if split is None else datasets.NamedSplit(split),
    )


def choose_columns(schema: pa.Schema, where: str, wanted: Wanted = ANY) -> ImageColumns:
    """Find the columns of image and label in an Arrow schema; a UserError for none or several."""
    types = {name: _plain(schema.field(name).type) for name in schema.names}
    features, unreadable = _features(schema)
    images = [name for name in types if _may_be_image(types[name])]
    image = _choose("image", wanted.image, images, schema.names, where)
    others = [name for name in types if name not in (image, SAMPLE_ID, wanted.id, *wanted.keep)]
    labels = [n for n in others if isinstance(features.get(n), datasets.ClassLabel)]
    labels = labels or [n for n in others if _may_be_label(types[n])]
    label = _choose("label", wanted.label, labels, schema.names, where)
    if not (_may_be_image(types[image]) or pa.types.is_string(types[image])):
        raise UserError(
            f"{where}: the column {image!r} holds {types[image]}; expected images: a struct of"
            " bytes and path, bytes, or names of files. Name another with --image-column."
        )
    if pa.types.is_nested(types[label]) and label not in features:
        raise UserError(
            f"{where}: the column {label!r} holds {types[label]}; class names or whole numbers are"
            " wanted. Name another with --label-column."
        )
    if label in unreadable and pa.types.is_integer(types[label]):  # texts are names themselves
        raise UserError(
            f"{where}: what the file says of its column {label!r} cannot be read, so that the names"
            f" of its classes would be lost: {unreadable[label]}."
        )
    feature = features.get(label) or datasets.Value(str(types[label]))
    for name in (wanted.id, *wanted.keep):
        if name is not None and name not in schema.names:
            raise UserError(
                f"{where} has no column {name!r}.{did_you_mean(name, schema.names)} Its columns:"
                f" {', '.join(schema.names)}."
            )
    ids = wanted.id or (SAMPLE_ID if SAMPLE_ID in schema.names else None)
    kept = tuple(
        (name, features.get(name) or generate_from_arrow_type(types[name])) for name in wanted.keep
    )
    return ImageColumns(image, label, feature, ids, kept)


def _choose(
    kind: str, name: str | None, likely: Sequence[str], there: Sequence[str], where: str
) -> str:
    if name is not None and name not in there:
        raise UserError(f"{where} has no column {name!r}; its columns: {', '.join(there)}.")
    if name is not None or kind in there:
        return name or kind
    if len(likely) == 1:
        return likely[0]
    raise UserError(
        f"{where} has no column {kind!r}; its columns: {', '.join(there)}. Name the right one with"
        f" --{kind}-column."
    )


def _features(schema: pa.Schema) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what `datasets` wrote down of the columns, and what of it cannot be read, with why.

    Each column is read by itself, so that one that no version knows costs no other its names.
    """
    stated = (schema.metadata or {}).get(b"huggingface")
    if stated is None:
        return {}, {}
    try:
        columns = dict(json.loads(stated)["info"]["features"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return {}, dict.fromkeys(schema.names, f"it is not JSON of that form ({error!r:.100})")
    features: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    gone = [name for name in columns if name not in schema.names]
    if gone and "ClassLabel" in str(columns[gone[0]]):
        problem = f"it speaks of {quoted(gone[0])}, which is no column"
        unreadable = dict.fromkeys(set(schema.names) - set(columns), problem)
    for name in {*columns} & {*schema.names}:
        kind = _plain(schema.field(name).type)
        try:
            feature = datasets.Features.from_dict({name: columns[name]})[name]
            if isinstance(feature, datasets.ClassLabel):
                if not all(isinstance(word, str) for word in feature.names):
                    raise ValueError(f"its names are {quoted(feature.names)}")
                if pa.types.is_integer(kind):
                    features[name] = feature
            elif datasets.Features({name: feature}).arrow_schema.field(name).type == kind:
                features[name] = feature
        except Exception as error:  # whatever somebody else wrote there
            unreadable[name] = " ".join(str(error).split())[:200]
    return features, unreadable


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without encodings that change nothing: dictionaries, large offsets."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def _may_be_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind))


def _may_be_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool({"bytes", "path"} & {kind.field(i).name for i in range(kind.num_fields)})
    return bool(pa.types.is_binary(kind))


def convert(table: pa.Table, columns: ImageColumns, root: Path) -> pa.Table:
    """Return a table of image, label and perhaps sample_id, files inside `root` (UserError)."""
    features = columns.features
    converted = {}
    for name, source in zip(features, columns.names, strict=True):
        column = table.column(source)
        if pa.types.is_dictionary(column.type) or column.type != _plain(column.type):
            column = column.cast(_plain(column.type))
        if name == "image":
            chunks = [features[name].cast_storage(chunk) for chunk in column.chunks]
            column = settle(pa.chunked_array(chunks, features[name].pa_type), root, str(root))
        if isinstance(features[name], datasets.ClassLabel):
            column = column.cast(pa.int64())
        if name == SAMPLE_ID:
            column = column.cast(pa.string())  # numbers are ids as well
        converted[name] = column
    return pa.table(converted, metadata=features.arrow_schema.metadata)
