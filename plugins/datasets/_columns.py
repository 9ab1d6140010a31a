"""Tables of images: which columns hold the image and the label, whatever they are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.features.features import generate_from_arrow_type

from bench.errors import UserError, quoted
from bench.inputs.parsing import check_column, in_words
from bench.inputs.rows import resolve_paths, rows_of

SAMPLE_ID = "sample_id"


@dataclass(frozen=True)
class Wanted:
    """The columns that the user or a declaration names, by parameters of the dataset."""

    image_column: str | None = None  # None: `image`, or the only one that holds images
    label_column: str | None = None
    """None: `label`, the only `ClassLabel`, or the only text or numbers."""
    id_column: str | None = None  # of the sample ids; None: `sample_id`, where there is one
    keep: tuple[str, ...] = ()  # others that the rows keep, such as groups or boxes

    @property
    def others(self) -> tuple[str, ...]:
        """The columns beside those of images and labels."""
        return (*filter(None, [self.id_column]), *self.keep)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*filter(None, [self.image_column, self.label_column]), *self.others)


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


def choose_columns(schema: pa.Schema, where: str, wanted: Wanted = ANY) -> ImageColumns:
    """Find the columns of image and label in an Arrow schema; a UserError for none or several."""
    types = {name: _plain(schema.field(name).type) for name in schema.names}
    features, unreadable = _features(schema)
    images = [name for name in types if _may_be_image(types[name])]
    image = choose_column(wanted.image_column, ("image",), schema.names, where, "image", images)
    others = [name for name in types if name not in (image, SAMPLE_ID, *wanted.others)]
    labels = [n for n in others if isinstance(features.get(n), datasets.ClassLabel)]
    labels = labels or [n for n in others if _may_be_label(types[n])]
    label = choose_column(wanted.label_column, ("label",), schema.names, where, "label", labels)
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
    for name in wanted.others:
        check_column(name, schema.names, where)
    ids = wanted.id_column or (SAMPLE_ID if SAMPLE_ID in schema.names else None)
    kept = tuple(
        (name, features.get(name) or generate_from_arrow_type(types[name])) for name in wanted.keep
    )
    return ImageColumns(image, label, feature, ids, kept)


def choose_column(
    wanted: str | None,
    usual: Sequence[str],
    columns: Sequence[str],
    where: str,
    kind: str,
    likely: Sequence[str] = (),
) -> str:
    """Return the column wanted, the first with a usual name, or the only likely one (UserError)."""
    if wanted is not None:
        check_column(wanted, columns, where)
        return wanted
    named = next((name for name in usual if name in columns), None)
    if named is not None or len(likely) == 1:
        return named or likely[0]
    apart = len(columns) == 1 and any(mark in columns[0] for mark in ";\t|")
    name_it = f"Name the right one with --{kind}-column."
    raise UserError(
        f"{where} has no column {' or '.join(map(repr, usual))}; its columns: {in_words(columns)}."
        f" {'Commas must stand between columns.' if apart else name_it}"
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


def standard_rows(
    table: pa.Table,
    where: str,
    wanted: Wanted,
    root: Path,
    split: str,
    files: Sequence[str] = (),
) -> datasets.Dataset:
    """Return a table's rows with the columns image, label and perhaps sample_id (UserError).

    `files` alone make up the table, if any; see `convert`.
    """
    columns = choose_columns(table.schema, where, wanted)
    return rows_of(convert(table, columns, root), columns.features, split, files)


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
            column = resolve_paths(
                pa.chunked_array(chunks, features[name].pa_type), root, str(root)
            )
        if isinstance(features[name], datasets.ClassLabel):
            column = column.cast(pa.int64())
        if name == SAMPLE_ID:
            column = column.cast(pa.string())  # numbers are ids as well
        converted[name] = column
    return pa.table(converted, metadata=features.arrow_schema.metadata)
