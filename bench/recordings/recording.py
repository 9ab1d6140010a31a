"""Recordings: runs that stored the error of every cell, so that strategies can be replayed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.contracts.dataset import Item, Sample, StoredImage
from bench.contracts.decision import MEAN
from bench.contracts.strategy import Evaluate, Floats32, Linearise, Problem
from bench.discovery.queries import exhaustive_strategy
from bench.engine.items import plain_problem
from bench.errors import UserError
from bench.inputs.subsets import select_subset
from bench.machine.hub import SCHEME, absent, find_commit
from bench.running.command import recording_command
from bench.store.folder import MANIFEST, find_run, read_manifest, requested_records
from bench.store.formats.cells import (
    FirstOrder,
    has_part,
    read_cells,
    read_draws,
    read_first_order,
    read_timesteps,
)
from bench.store.formats.documents import Manifest
from bench.store.formats.journal import Record

CROISSANT = "croissant.json"
RECORDING_FILES = (
    *("README.md", CROISSANT, MANIFEST, "samples.jsonl", "summary.json", "draws.parquet"),
    *("errors/*.parquet", "first_order/*.parquet"),
)


@dataclass(frozen=True)
class Tables:
    """The recorded errors of one image: P prompts on N draws."""

    errors: Floats32  # float32 [P, N]
    first_order: FirstOrder = field(default_factory=list)
    """Pairs of a mixture of prompts and its first-order errors, float32 [P, N], NaN if missing."""
    linearisation_cost: float = 0.0  # evaluations per linearised draw

    @property
    def at_mean(self) -> Floats32 | None:
        """First-order errors at the mean of the prompts, float32 [P, N]; None if some are missing.

        A strategy that screens all prompts linearises there.
        """
        tables = (table for mixture, table in self.first_order if np.allclose(mixture, mixture[0]))
        return next((table for table in tables if not np.isnan(table).any()), None)

    def reply(self, request: Evaluate | Linearise) -> Floats32:
        """Return the errors, float32 [prompts, draws]; UserError if a linearisation is missing."""
        if isinstance(request, Evaluate):
            return self.errors[request.prompts[:, None], request.draws]
        for mixture, values in self.first_order:
            errors = values[:, request.draws]
            if np.allclose(mixture, request.mixture) and not np.isnan(errors).any():
                return errors
        raise UserError(
            "The strategy asks for a linearisation that was not recorded. A run with --strategy"
            " full-linearised --save-errors records those at the mean of the prompts; others need"
            " the model."
        )


@dataclass(frozen=True)
class Recording:
    """A run whose strategy evaluated every cell, with the stored errors."""

    path: Path
    manifest: Manifest
    records: tuple[Record, ...]  # decided images, in the order of the manifest
    problem: Problem  # problem of an image that has no texts of its own

    @property
    def n_draws(self) -> int:
        """Number of recorded draws, N."""
        return len(self.problem.timesteps)

    def samples(self, sample_ids: Iterable[str] | None = None) -> list[Sample]:
        """Return samples by id, without their images; None for all."""
        by_id = self._by_id
        return [_make_sample(by_id[i]) for i in (by_id if sample_ids is None else sample_ids)]

    def subset(self, limit: int | None) -> list[Sample]:
        """Return the samples, stratified, that a replay with `--limit` decides; None for all."""
        return self.samples(subset_of(self.records, limit))

    def tables_and_problem(self, sample: Sample) -> tuple[Tables, Problem]:
        """Return what is recorded of a sample, and the problem of one of its images."""
        return self.tables(sample.sample_id), plain_problem(self.problem).of(sample).problem

    @cached_property
    def _by_id(self) -> dict[str, Record]:
        return {record["sample_id"]: record for record in self.records}

    def shape(self, sample_id: str) -> tuple[int, int]:
        """Return the shape (P, N) of a sample's errors. P of an item is images × texts."""
        shape = self._by_id[sample_id].get("shape")
        prompts = len(self.problem.class_of_prompt) if shape is None else shape[0] * shape[1]
        return prompts, self.n_draws

    def tables(self, sample_id: str) -> Tables:
        """Return everything recorded for one image; UserError if a part of it is missing."""
        errors = self.errors(sample_id)
        if not self.problem.can_linearise:
            return Tables(errors)
        try:
            first_order = read_first_order(self.path / "first_order", sample_id, errors.shape)
        except FileNotFoundError:
            raise UserError(
                f"{self.path} holds no first-order errors of sample {sample_id!r}."
            ) from None
        return Tables(errors, first_order, self.problem.linearisation_cost)

    def errors(self, sample_id: str) -> Floats32:
        """Return the errors of one image, float32 [P, N]; UserError if some are missing."""
        try:
            errors = read_cells(self.path / "errors", sample_id, self.shape(sample_id))
        except FileNotFoundError:
            raise UserError(f"{self.path} holds no errors of sample {sample_id!r}.") from None
        if np.isnan(errors).any():
            raise UserError(
                f"{self.path} does not hold every cell of sample {sample_id!r}; a replay needs:"
                f" {recording_command(self.manifest)}"
            )
        return errors


def _make_sample(record: Record) -> Sample:
    """Return the sample of a record without its images. An item's texts are numbered from 0."""
    shape = record.get("shape")
    item = None
    if shape:
        right = tuple(record.get("right", ()))
        item = Item((StoredImage(),) * shape[0], tuple(range(shape[1])), right)
    cluster = record.get("cluster")
    return Sample(
        record["sample_id"], record["label"], {}, item, record.get("group"), None, cluster
    )


def subset_of(records: Sequence[Record], limit: int | None) -> list[str]:
    """Return the ids of a stratified subset of the records' images; None for all."""
    labels = [record["label"] for record in records]
    return select_subset([record["sample_id"] for record in records], labels, limit)


def _costs(manifest: Manifest, record: Record, n_draws: int) -> tuple[int, int]:
    """Return the evaluations per cell, and those of the null prompt per image and draw.

    A record has their sum. With guidance, each image of a draw takes one evaluation of the null
    prompt beside its cells; where the null's error is subtracted, the null prompt is one more cell.
    """
    scoring, per_draw = manifest.identity.scoring, record["evaluations"] // n_draws
    images, texts = record.get("shape") or (1, len(manifest.class_of_column))
    cells = images * texts
    if scoring.guidance_null is not None:
        return max(1, (per_draw - images) // cells), 1
    if scoring.subtract_null:
        per_cell = max(1, per_draw // (cells + images))
        return per_cell, per_cell
    return max(1, per_draw // cells), 0


def _linearisation_cost(manifest: Manifest, records: Sequence[Record]) -> float:
    """Return the evaluations per linearised draw, which an old manifest lacks and records show."""
    if manifest.linearisation_cost is not None:
        return manifest.linearisation_cost
    draws = sum(record.get("linearisations", 0) for record in records)
    extra = sum(r.get("equivalents", r["evaluations"]) - r["evaluations"] for r in records)
    return extra / draws if draws else 0.0


def open_recording(path: Path, strategy: str | None = None) -> Recording:
    """Open a run for replays. Images that failed or have no stored errors are left out.

    Raises UserError if no errors are stored, or the first image lacks some. The message recommends
    `strategy`; None is the exhaustive one.
    """
    manifest = read_manifest(path)
    if manifest.identity.candidates is not None:
        raise UserError(
            f"{manifest.run_id} recorded only the candidates of each image; a replay needs all"
            " classes. Record a run without --candidates-from."
        )
    folder = path / "errors"
    records = [
        record
        for record in requested_records(path, manifest)
        if record["error"] is None and has_part(folder, record["sample_id"])
    ]
    if not records:
        raise UserError(
            f"{manifest.run_id} holds no recorded errors. Record them once with:"
            f" {recording_command(manifest, strategy)}"
        )
    if manifest.draws is None:
        raise UserError(f"{manifest.run_id}: the manifest lacks the number of recorded draws.")
    timesteps = read_timesteps(folder, records[0]["sample_id"], manifest.draws)
    classes = np.array(manifest.class_of_column, dtype=np.int64)
    draws = read_draws(path, len(timesteps))
    weights = np.ones(len(timesteps)) if draws is None else draws.weights
    cell, null = _costs(manifest, records[0], len(timesteps))
    problem = Problem(
        classes,
        timesteps,
        weights,
        manifest.identity.seed,
        cell_cost=cell,
        null_cost=null,
        linearisation_cost=_linearisation_cost(manifest, records),
        can_linearise=has_part(path / "first_order", records[0]["sample_id"]),
        reduction=manifest.identity.scoring.reduction or MEAN,
        antithetic=manifest.identity.scoring.antithetic,
        parents=None if manifest.parents is None else np.array(manifest.parents, dtype=np.int64),
    )
    recording = Recording(path, manifest, tuple(records), problem)
    recording.errors(records[0]["sample_id"])  # fails early if the run skipped cells
    return recording


def open_draws(path: Path, strategy: str | None = None) -> Recording:
    """Open a run for trials, like `open_recording`; UserError if it has a single draw."""
    recording = open_recording(path, strategy)
    if recording.n_draws == 1:
        raise UserError(
            f"{recording.manifest.run_id} has one draw per image, where every strategy decides like"
            f" {exhaustive_strategy()!r} at the same cost: there is nothing to try or to learn."
        )
    return recording


def find_recording(name: str, results: str) -> Path:
    """Return the folder of a run, or of `hf:owner/name@revision`, downloaded (UserError)."""
    on_hub = name.startswith(SCHEME)
    return _download(name.removeprefix(SCHEME)) if on_hub else find_run(name, results)


def _download(repository: str) -> Path:
    name, _, revision = repository.partition("@")
    try:
        commit = find_commit(name, revision or None, "dataset")
        files = [
            file
            for file in commit.files or ()
            if any(fnmatchcase(file, pattern) for pattern in RECORDING_FILES)
        ]
        commit.prefetch(files)
        for file in files:
            commit.fetch(file)
    except Exception as error:  # the Hub's client raises many kinds
        raise absent(f"{SCHEME}{repository} is", error, name, "dataset") from error
    if not (commit.folder / MANIFEST).is_file():
        raise UserError(
            f"{SCHEME}{repository} is not an error table: it has no {MANIFEST}. `bench export"
            " RUN --format errors` writes one."
        )
    return commit.folder
