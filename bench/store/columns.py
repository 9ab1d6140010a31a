"""Further labels of a run's images, the answers of others to them, and the input of its metrics.

A further label is a text such as the shape or the camera of an image. The labels are stored in
`columns.json` with the fingerprint of the data that they are about, and are not part of the run's
identity. Answers are read from users' files and from other runs, and not stored.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.metric import NO_ANSWER, Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Ints
from bench.errors import UserError, did_you_mean, refusing
from bench.inputs.parsing import read_csv_file
from bench.store.formats.decisions import Decisions, class_scores, shared_rows
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Document
from bench.store.locking import locked
from bench.store.runs import read_run
from bench.store.sidecar import Sidecar

ID, SUBJECT, ANSWER = "sample_id", "subject", "answer"

Column = Mapping[str, str]  # sample id → label


class FurtherLabels(Document):
    """Further labels of the images of a run."""

    columns: dict[str, dict[str, str]]  # name → sample id → label
    # Files of format 1 had these two hashes; the seal of a side file has replaced them.
    fingerprint: str | None = None  # of the labelled data
    digest: str | None = None  # of the labels

    def is_of_format_1(self, fingerprint: str) -> bool:
        """Return whether the two hashes of format 1 fit the labels and the data."""
        text = json.dumps(self.columns, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return (self.fingerprint, self.digest) == (fingerprint, digest)


FURTHER_LABELS = Sidecar(
    "columns.json",
    FurtherLabels,
    "a file of further labels",
    "Add the columns again with `bench results columns`.",
    covers_records=False,  # labels remain true when the run has more records
    accepts_unsealed=FurtherLabels.is_of_format_1,
)


def add_columns(
    path: Path, manifest: Manifest, added: Mapping[str, Column]
) -> dict[str, dict[str, str]]:
    """Add further labels to those in a run's folder, replacing columns by name, and return all.

    Raises UserError if a column has no label, or one for a foreign image, and as `locked`.
    """
    samples = set(manifest.samples)
    for name, labels in added.items():
        if foreign := next((sample for sample in labels if sample not in samples), None):
            raise UserError(f"Column {name!r}: {manifest.run_id} has no image {foreign!r}.")
        if not any(labels.values()):
            raise UserError(f"Column {name!r} has no label for any image of {manifest.run_id}.")
    fingerprint = manifest.identity.dataset.fingerprint
    with locked(path) as folder:
        before = FURTHER_LABELS.read(path, fingerprint)  # None if damaged: then it is replaced
        columns = {**(before.columns if before else {}), **{n: dict(c) for n, c in added.items()}}
        FURTHER_LABELS.write(folder, fingerprint, FurtherLabels(columns=columns))
    return columns


def read_columns(path: Path, manifest: Manifest) -> dict[str, dict[str, str]]:
    """Return the further labels of a run by column and sample id, {} if it has none.

    Raises UserError if the file is damaged, was changed by hand, or is for other data.
    """
    if not os.path.lexists(path / FURTHER_LABELS.name):
        return {}
    return FURTHER_LABELS.require(path, manifest.identity.dataset.fingerprint).columns


def column_values(
    columns: Mapping[str, Column], name: str, sample_ids: Sequence[str]
) -> NDArray[np.str_]:
    """Return the label of each image in an existing column, "" for an image without one."""
    if name not in columns:
        raise UserError(
            f"there is no column {name!r} of further labels.{did_you_mean(name, columns)} Columns:"
            f" {', '.join(columns) or 'none'}. `bench results columns RUN FILE` adds them."
        )
    return np.array([columns[name].get(sample, "") for sample in sample_ids], dtype=np.str_)


def labelled_samples(path: Path, manifest: Manifest, name: str, value: str) -> list[str]:
    """Return the ids of a run's images with the label `value`; raise UserError if it has none."""
    labels = column_values(read_columns(path, manifest), name, manifest.samples)
    chosen = [s for s, label in zip(manifest.samples, labels, strict=True) if label == value]
    if not chosen:
        known_labels = sorted(set(labels.tolist()) - {""})
        raise UserError(
            f"no image of {manifest.run_id} has {name}={value}.{did_you_mean(value, known_labels)}"
            f" Labels: {', '.join(known_labels[:20])}."
        )
    return chosen


def read_columns_csv(file: Path) -> dict[str, dict[str, str]]:
    """Read further labels, by column and sample id, from a CSV file with a column sample_id.

    Raises UserError if the file cannot be read, has no other column, or repeats an image.
    """
    head, lines = read_csv_file(file, (ID,))
    names = [name for name in head if name != ID]
    if not names:
        raise UserError(f"{file} must have a column besides {ID}.")
    rows = [row for _, row in lines]
    for sample, count in Counter(row[ID] for row in rows).most_common(1):
        if count > 1:
            raise UserError(f"{file} has image {sample!r} {count} times.")
    return {name: {row[ID]: row[name] for row in rows} for name in names}


def read_answers(file: Path, manifest: Manifest, sample_ids: Sequence[str]) -> dict[str, Ints]:
    """Read people's answers to n images from a CSV file with columns subject, sample_id and answer.

    Returns the class of each subject's answer to each image, int64 [n]: -1 if the answer is empty,
    which counts as wrong; `NO_ANSWER` if the subject did not see the image. Answers to images that
    are not in `sample_ids` are ignored.

    Raises UserError if a column is missing, an answer is not a class, a subject answers twice, or
    there is no answer to any of the images.
    """
    class_of = {name: label for label, name in enumerate(manifest.classes)}
    row_of = {sample: index for index, sample in enumerate(sample_ids)}
    raters: dict[str, Ints] = {}
    for line, row in read_csv_file(file, (SUBJECT, ID, ANSWER))[1]:
        answer = row[ANSWER].strip()
        if answer and answer not in class_of:
            raise UserError(
                f"{file}, line {line}: {answer!r} is not a class of {manifest.run_id}."
                f"{did_you_mean(answer, class_of)}"
            )
        if (index := row_of.get(row[ID])) is None:
            continue
        answers = raters.setdefault(row[SUBJECT], np.full(len(row_of), NO_ANSWER, dtype=np.int64))
        if answers[index] != NO_ANSWER:
            raise UserError(
                f"{file}, line {line}: subject {row[SUBJECT]!r} answers {row[ID]!r} twice."
            )
        answers[index] = class_of.get(answer, -1)
    if not raters:
        raise UserError(f"{file} has no answer to any image of {manifest.run_id}.")
    return raters


def read_raters(manifest: Manifest, decided: Decisions, others: Sequence[Path]) -> dict[str, Ints]:
    """Return the answers of others to a run's images, int64 [n] each, by name.

    `others` are CSV files, which may have answers of several people, and folders of runs with the
    same data and classes. An image that another run did not decide is NO_ANSWER.
    """
    raters: dict[str, Ints] = {}
    for path in others:
        if path.is_file():
            raters |= read_answers(path, manifest, decided.sample_ids.to_pylist())
            continue
        run = read_run(path)
        other = run.manifest
        theirs = run.require_decisions()
        if (manifest.classes, manifest.identity.dataset) != (other.classes, other.identity.dataset):
            raise UserError(f"{other.run_id} has other data or classes than {manifest.run_id}.")
        own_rows, their_rows = shared_rows(decided, theirs)
        answers = np.full(len(decided), NO_ANSWER, dtype=np.int64)
        answers[own_rows] = theirs.predictions[their_rows]
        raters[other.run_id] = answers
    return raters


def needs_top(spec: MetricSpec) -> bool:
    """Return whether decisions must be read with `top` for a metric."""
    return not {"top5", "ranks"}.isdisjoint(spec.needs)


def metric_input(
    path: Path,
    manifest: Manifest,
    decided: Decisions,
    spec: MetricSpec,
    metric: Metric,
    raters: Mapping[str, Ints] | None = None,
) -> MetricInput:
    """Return the input of a metric: a run's decisions and whatever else the metric declares.

    `raters` are the answers of others, int64 [n] each. Raises a UserError with the reason if the
    run lacks something that the metric needs.
    """
    sample_ids = decided.sample_ids.to_pylist() if metric.columns else []
    with refusing(f"{manifest.run_id} has no {spec.words}: ", UserError, after=""):
        if (reason := _why_impossible(spec, manifest, decided, raters)) is not None:
            raise UserError(reason)
        stored = read_columns(path, manifest) if metric.columns else {}
        scored = "scores" in spec.needs
        return MetricInput(
            classes=tuple(manifest.classes),
            labels=decided.labels,
            predictions=decided.predictions,
            in_top5=decided.in_top5,
            in_candidates=decided.in_candidates,
            ranks=decided.ranks,
            first_ranks=decided.first_ranks,
            answers=decided.answers,
            clusters=decided.clusters,
            items=manifest.items is not None,
            scores=class_scores(path, manifest, decided.sample_ids) if scored else None,
            groups=decided.groups,
            columns={name: column_values(stored, name, sample_ids) for name in metric.columns},
            raters=raters or {},
        )


def _why_impossible(
    spec: MetricSpec, manifest: Manifest, decided: Decisions, raters: Mapping[str, Ints] | None
) -> str | None:
    """Return a sentence about the first thing that a metric needs and a run lacks, or None."""
    if spec.of_classes and manifest.items:
        return "it averages over classes, and the texts of an item are its own."
    if "top5" in spec.needs and manifest.items:
        return "it decided among the texts of each item, not among classes."
    if "top5" in spec.needs and len(manifest.classes) <= 5:
        return "it has five classes or fewer, so all are among the five best."
    if "ranks" in spec.needs and not (manifest.items and decided.ranks is not None):
        return "its records have no rank of a right answer, which those of items have."
    if "candidates" in spec.needs and decided.in_candidates is None:
        return "it decided among all classes. See --candidates."
    if "groups" in spec.needs and decided.groups is None:
        return "its images have no groups."
    if "rater" in spec.needs and not raters:
        return "it needs answers to compare with. Give --with RUN, or --with a CSV file."
    return None
