"""Datasets as the toolkit uses them: labelled images with stable ids, and fair subsets of them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Sample
from bench.contracts.specs import DatasetSpec
from bench.discovery.guard import guard
from bench.discovery.targets import make
from bench.errors import UserError

if TYPE_CHECKING:
    import datasets

FOLDER = "folder"  # the registered name that a path stands for, among datasets and backbones


@dataclass(frozen=True)
class Split:
    """One split of one dataset, ready to be scored.

    Attributes:
        name: the dataset's name.
        version: its spec's version.
        split: the split's name.
        classes: readable class names in label order.
        sample_ids: [n], unique, in the dataset's order.
        labels: [n], class indices.
        fingerprint: hash of ids, labels and image bytes; independent of the order.
    """

    name: str
    version: int
    split: str
    classes: tuple[str, ...]
    sample_ids: tuple[str, ...]
    labels: tuple[int, ...]
    fingerprint: str
    rows: datasets.Dataset

    def samples(self, sample_ids: Sequence[str]) -> Iterator[Sample]:
        """Yield the samples with these ids, one at a time."""
        row_of = {sample_id: row for row, sample_id in enumerate(self.sample_ids)}
        for sample_id in sample_ids:
            row = row_of[sample_id]
            yield Sample(sample_id, self.labels[row], self.rows[row]["image"])


def load_split(spec: DatasetSpec, split: str | None = None, data_dir: str | None = None) -> Split:
    """Load one split and check it.

    Args:
        spec: the dataset.
        split: its name; None: the one that is evaluated.
        data_dir: a local copy, where the dataset can use one.

    Raises:
        UserError: unknown split, missing data, or columns that do not fit.
    """
    rows = load_rows(spec, split, data_dir)
    classes = tuple(spec.classes or rows.features["label"].names)
    sample_ids = tuple(rows["sample_id"])
    labels = tuple(rows["label"])
    return Split(
        name=slug(data_dir) if spec.name == FOLDER and data_dir else spec.name,
        version=spec.version,
        split=str(rows.split or split or spec.split or "all"),
        classes=classes,
        sample_ids=sample_ids,
        labels=labels,
        fingerprint=_fingerprint(rows, sample_ids, labels),
        rows=rows,
    )


def load_rows(
    spec: DatasetSpec, split: str | None = None, data_dir: str | None = None
) -> datasets.Dataset:
    """Return the split as `datasets.Dataset` with image (not decoded), label and sample_id."""
    import datasets

    split = split or spec.split
    if spec.splits and split not in spec.splits:
        raise UserError(
            f"Dataset {spec.name!r} has no split {split!r}; it has: {', '.join(spec.splits)}."
        )
    if data_dir is not None and not Path(data_dir).exists():
        raise UserError(f"The data folder {data_dir} does not exist.")
    datasets.disable_progress_bars()  # they would stand between the run's own lines
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # its retries; we say what is wrong
    dataset = make(spec, **spec.resolve_parameters({}))
    with guard(spec.label, "load()"):
        rows = dataset.load(split=split, data_dir=data_dir)
    _check(rows, spec)
    if not isinstance(rows.features["image"], datasets.Image):
        raise UserError(
            f"Dataset {spec.name!r}: its column 'image' holds {rows.features['image']}, not"
            " images; cast it with datasets.Image()."
        )
    if isinstance(rows.features["label"], datasets.Value):
        rows = _encode_labels(rows, spec)
    rows = rows.cast_column("image", datasets.Image(decode=False))
    if "sample_id" not in rows.column_names:
        rows = rows.add_column(
            "sample_id", unique_ids(_hash_bytes(image_bytes(r["image"]))[:16] for r in rows)
        )
    duplicates = [name for name, count in Counter(rows["sample_id"]).items() if count > 1]
    if duplicates:
        raise UserError(
            f"Dataset {spec.name!r}: sample_id {duplicates[0]!r} stands for several images;"
            " ids must be unique."
        )
    return rows


def limited(sample_ids: Sequence[str], labels: Sequence[int], limit: int | None) -> list[str]:
    """Choose `limit` samples: stratified over the classes, nested, independent of the order.

    Samples are ranked within their class by a hash of their id and dealt out class by class in
    rounds, the classes of each round again by a hash, so that no class is always short.
    """
    if limit is None or limit >= len(sample_ids):
        return list(sample_ids)
    by_class: dict[int, list[str]] = {}
    for sample_id, label in zip(sample_ids, labels, strict=True):
        by_class.setdefault(label, []).append(sample_id)
    dealt: list[tuple[int, str, str]] = []
    for label, members in by_class.items():
        for position, sample_id in enumerate(sorted(members, key=_hash)):
            dealt.append((position, _hash(f"{position}:{label}"), sample_id))
    chosen = {sample_id for _, _, sample_id in sorted(dealt)[:limit]}
    return [sample_id for sample_id in sample_ids if sample_id in chosen]


def _check(rows: Any, spec: DatasetSpec) -> None:
    import datasets

    if not isinstance(rows, datasets.Dataset):
        raise UserError(
            f"Dataset {spec.name!r}: load() returned {type(rows).__name__}; a datasets.Dataset"
            " with the columns 'image' and 'label' is wanted."
        )
    for column in ("image", "label"):
        if column not in rows.column_names:
            raise UserError(
                f"Dataset {spec.name!r} has no column {column!r}; its columns:"
                f" {', '.join(rows.column_names)}."
            )
    if len(rows) == 0:
        raise UserError(f"Dataset {spec.name!r} holds no images in split {spec.split!r}.")


def _encode_labels(rows: datasets.Dataset, spec: DatasetSpec) -> datasets.Dataset:
    import datasets

    values = set(rows["label"])
    if spec.classes is None:
        if any(isinstance(value, str) for value in values):
            return rows.class_encode_column("label")
        raise UserError(
            f"Dataset {spec.name!r}: labels are bare numbers. Say the class names in the spec"
            " (classes=…), or make 'label' a datasets.ClassLabel."
        )
    names = list(spec.classes)
    strange = [
        v for v in values if v not in names and not (isinstance(v, int) and 0 <= v < len(names))
    ]
    if strange:
        raise UserError(f"Dataset {spec.name!r}: label {strange[0]!r} is not one of its classes.")
    return rows.cast_column("label", datasets.ClassLabel(names=names))


def unique_ids(ids: Iterable[str]) -> list[str]:
    """Return the ids; identical ones, as of identical images, get a suffix: x, x-2, x-3."""
    seen: Counter[str] = Counter()
    unique = []
    for sample_id in ids:
        seen[sample_id] += 1
        count = seen[sample_id]
        unique.append(sample_id if count == 1 else f"{sample_id}-{count}")
    return unique


def _fingerprint(rows: datasets.Dataset, ids: Sequence[str], labels: Sequence[int]) -> str:
    lines = [
        f"{sample_id} {label} {_hash_bytes(image_bytes(row['image']))}"
        for sample_id, label, row in zip(ids, labels, rows, strict=True)
    ]
    return _hash("\n".join(sorted(lines)))


def image_bytes(image: dict[str, Any]) -> bytes:
    """Return an image as it is encoded, from memory or from its file."""
    data = image.get("bytes")
    return bytes(data) if data is not None else Path(image["path"]).read_bytes()


def _hash(text: str) -> str:
    return _hash_bytes(text.encode())


def _hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def slug(path: str) -> str:
    """Return a folder's name as it stands in a run id."""
    name = Path(path).resolve().name.lower()
    return "".join(c if c.isalnum() else "-" for c in name).strip("-") or FOLDER
