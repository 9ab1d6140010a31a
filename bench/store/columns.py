"""`columns.json`: further labels of a run's images, and the answers of people to them.

Neither is part of the run's identity or of the fingerprint of its data: a hash of their own tells
whether they changed, and labels of other data are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.measuring import NO_ANSWER
from bench.contracts.strategy import Ints
from bench.errors import UserError, did_you_mean
from bench.inputs.parsing import Lines, read_csv
from bench.machine.files import read_text
from bench.store.documents import Manifest
from bench.store.fields import Count, Document, read_document, write_document

COLUMNS_FILE = "columns.json"
COLUMNS_FORMAT = 1
ID, SUBJECT, ANSWER = "sample_id", "subject", "answer"

Column = Mapping[str, str]  # sample id → label


class FurtherLabels(Document):
    """Further labels of the images of a run."""

    format: Count
    fingerprint: str  # fingerprint of the data that the labels are of
    digest: str  # hash of the labels
    columns: dict[str, dict[str, str]]  # name → sample id → label


def add_columns(path: Path, manifest: Manifest, added: Mapping[str, Column]) -> FurtherLabels:
    """Write further labels into a run's folder, beside those that it has, and return all.

    UserError: a column has no label of any image of the run, or a label of another image.
    """
    samples = set(manifest.samples)
    for name, labels in added.items():
        if strange := next((sample for sample in labels if sample not in samples), None):
            raise UserError(f"Column {name!r}: {manifest.run_id} has no image {strange!r}.")
        if not any(labels.values()):
            raise UserError(f"Column {name!r} has no label of an image of {manifest.run_id}.")
    before = read_columns(path, manifest)
    columns = {**before, **{name: dict(labels) for name, labels in added.items()}}
    document = FurtherLabels(
        format=COLUMNS_FORMAT,
        fingerprint=manifest.identity.dataset.fingerprint,
        digest=_digest(columns),
        columns=columns,
    )
    write_document(path / COLUMNS_FILE, document)
    return document


def read_columns(path: Path, manifest: Manifest) -> dict[str, dict[str, str]]:
    """Return the further labels of a run, by column and sample id; {}: it has none.

    UserError: the file is damaged, was changed by hand, or its labels are of other data.
    """
    if not (path / COLUMNS_FILE).exists():
        return {}
    again = "Add the columns again with `bench results columns`."
    document = read_document(
        FurtherLabels,
        path,
        COLUMNS_FILE,
        what="a file of further labels",
        newest=COLUMNS_FORMAT,
        advice=again,
    )
    if document.fingerprint != manifest.identity.dataset.fingerprint:
        raise UserError(f"{path / COLUMNS_FILE} is stale: its labels are of other data. {again}")
    if document.digest != _digest(document.columns):
        raise UserError(f"{path / COLUMNS_FILE} was changed: its hash differs. {again}")
    return document.columns


def column_values(
    columns: Mapping[str, Column], name: str, sample_ids: Sequence[str]
) -> NDArray[np.str_]:
    """Return the label of each image in a column, "" where it has none (UserError: no column)."""
    if name not in columns:
        raise UserError(
            f"there is no column {name!r} of further labels.{did_you_mean(name, columns)} It has:"
            f" {', '.join(columns) or 'none'}. `bench results columns RUN FILE` adds them."
        )
    return np.array([columns[name].get(sample, "") for sample in sample_ids], dtype=np.str_)


def labelled_samples(path: Path, manifest: Manifest, name: str, value: str) -> list[str]:
    """Return the images of a run with this label in a column (UserError: no column, no image)."""
    labels = column_values(read_columns(path, manifest), name, manifest.samples)
    chosen = [s for s, label in zip(manifest.samples, labels, strict=True) if label == value]
    if not chosen:
        kinds = sorted(set(labels.tolist()) - {""})
        raise UserError(
            f"no image of {manifest.run_id} has {name}={value}.{did_you_mean(value, kinds)} It has:"
            f" {', '.join(kinds[:20])}."
        )
    return chosen


def read_columns_csv(file: Path) -> dict[str, dict[str, str]]:
    """Return the columns of a CSV file with a column sample_id (UserError: it is not one)."""
    head, lines = _read(file, (ID,))
    names = [name for name in head if name != ID]
    if not names:
        raise UserError(f"{file} has no column beside {ID}.")
    rows = [row for _, row in lines]
    for sample, count in Counter(row[ID] for row in rows).most_common(1):
        if count > 1:
            raise UserError(f"{file} has image {sample!r} {count} times.")
    return {name: {row[ID]: row[name] for row in rows} for name in names}


def read_answers(file: Path, manifest: Manifest, sample_ids: Sequence[str]) -> dict[str, Ints]:
    """Return subject → class index of its answer to each image, from a CSV file.

    The file has the columns subject, sample_id and answer, a class name. An empty answer is none of
    the classes and counts as wrong; images that a subject did not see have `NO_ANSWER`. Answers to
    images that are not here are left out.

    Raises:
        UserError: a column is missing, an answer is no class, a subject answers twice, or nobody
            saw any of these images.
    """
    class_of = {name: label for label, name in enumerate(manifest.classes)}
    place = {sample: row for row, sample in enumerate(sample_ids)}
    raters: dict[str, Ints] = {}
    for line, row in _read(file, (SUBJECT, ID, ANSWER))[1]:
        answer = row[ANSWER].strip()
        if answer and answer not in class_of:
            raise UserError(
                f"{file}, line {line}: {answer!r} is no class of {manifest.run_id}."
                f"{did_you_mean(answer, class_of)}"
            )
        if (where := place.get(row[ID])) is None:
            continue
        answers = raters.setdefault(row[SUBJECT], np.full(len(place), NO_ANSWER, dtype=np.int64))
        if answers[where] != NO_ANSWER:
            raise UserError(
                f"{file}, line {line}: subject {row[SUBJECT]!r} answers {row[ID]!r} twice."
            )
        answers[where] = class_of.get(answer, -1)
    if not raters:
        raise UserError(f"{file} has no answer to an image of {manifest.run_id}.")
    return raters


def _read(file: Path, needed: Sequence[str]) -> tuple[list[str], Lines]:
    """Return the names of a CSV file's columns, and its other lines with their numbers."""
    try:
        head, lines = read_csv(read_text(file), str(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    if not set(needed) <= set(head):
        raise UserError(f"{file}: a CSV file with the columns {', '.join(needed)} is needed.")
    return head, lines


def _digest(columns: Mapping[str, Column]) -> str:
    text = json.dumps(columns, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
