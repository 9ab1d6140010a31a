"""Recordings: runs that kept the error of every cell, for strategies to be replayed on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Item, Sample, StoredImage
from bench.contracts.decision import MEAN
from bench.contracts.strategy import Evaluate, Linearise, Problem
from bench.discovery.loading import exhaustive
from bench.engine.items import Questions, plain_question
from bench.errors import AbsentError, UserError
from bench.inputs.subsets import limited
from bench.machine.offline import asking_hub, refusal
from bench.running.command import recording_command
from bench.store.cells import FirstOrder, holds_part, read_cells, read_first_order, read_timesteps
from bench.store.documents import Manifest
from bench.store.draw_table import read_draws
from bench.store.folder import MANIFEST, asked_records, find_run, read_manifest
from bench.store.records import Record

SCHEME = "hf:"  # of an error table on the Hugging Face Hub
CROISSANT = "croissant.json"
RECORDING_FILES = (
    *("README.md", CROISSANT, MANIFEST, "samples.jsonl", "summary.json", "draws.parquet"),
    *("errors/*.parquet", "first_order/*.parquet"),
)


@dataclass(frozen=True)
class Tables:
    """All that was recorded of one image."""

    errors: NDArray[np.float32]  # float32 [P, N]
    first_order: FirstOrder = field(default_factory=list)
    """First-order errors, float32 [P, N], by mixture; NaN where there are none."""
    linearisation_cost: float = 0.0  # evaluations per linearised draw

    def reply(self, request: Evaluate | Linearise) -> NDArray[np.float32]:
        """Return the requested errors, float32 [prompts, draws]; a UserError if not recorded."""
        if isinstance(request, Evaluate):
            return self.errors[np.ix_(request.prompts, request.draws)]
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
    """A run whose strategy evaluated every cell and that kept the errors."""

    path: Path
    manifest: Manifest
    records: tuple[Record, ...]  # decided images, in the order of the manifest
    problem: Problem  # the question of every image

    @property
    def n_draws(self) -> int:
        """N, the number of recorded draws."""
        return len(self.problem.timesteps)

    def samples(self, sample_ids: Iterable[str] | None = None) -> list[Sample]:
        """Return samples with id and label, without their images; None: all."""
        by_id = self._by_id
        return [_sample(by_id[i]) for i in (by_id if sample_ids is None else sample_ids)]

    def some(self, limit: int | None) -> list[Sample]:
        """Return `limit` samples, None: all; stratified, those that a replay with it decides."""
        ids = [record["sample_id"] for record in self.records]
        return self.samples(limited(ids, [record["label"] for record in self.records], limit))

    @cached_property
    def _by_id(self) -> dict[str, Record]:
        return {record["sample_id"]: record for record in self.records}

    @cached_property
    def questions(self) -> Questions:
        """The question of each sample."""
        return Questions(plain_question(self.problem))

    def shape(self, sample_id: str) -> tuple[int, int]:
        """Return (P, N) of one image's errors; P of an item are its images times its texts."""
        shape = self._by_id[sample_id].get("shape")
        prompts = len(self.problem.class_of_prompt) if shape is None else shape[0] * shape[1]
        return prompts, self.n_draws

    @cached_property
    def linearisation_cost(self) -> float:
        """Evaluations per linearised draw; of old recordings, those that were counted."""
        if self.manifest.linearisation_cost is not None:
            return self.manifest.linearisation_cost
        draws = sum(record.get("linearisations", 0) for record in self.records)
        extra = sum(r.get("equivalents", r["evaluations"]) - r["evaluations"] for r in self.records)
        return extra / draws if draws else 0.0

    @cached_property
    def costs(self) -> tuple[int, int]:
        """Evaluations per cell, and of the null per draw of a request, as they were counted."""
        first, scoring = self.records[0], self.manifest.identity.scoring
        prompts, draws = self.shape(first["sample_id"])
        images, per_draw = first.get("shape", [1])[0], first["evaluations"] // draws
        if scoring.guidance_null is not None:
            return max(1, (per_draw - images) // prompts), 1
        nulls = images if scoring.subtract_null else 0  # each at the price of a cell
        cell = max(1, per_draw // (prompts + nulls))
        return cell, cell if nulls else 0

    def tables(self, sample_id: str) -> Tables:
        """Return all that was recorded of one image; `UserError`: some of it is missing."""
        errors = self.errors(sample_id)
        if not self.problem.can_linearise:
            return Tables(errors)
        try:
            first_order = read_first_order(self.path / "first_order", sample_id, errors.shape)
        except FileNotFoundError:
            raise UserError(
                f"{self.path} holds no first-order errors of sample {sample_id!r}."
            ) from None
        return Tables(errors, first_order, self.linearisation_cost)

    def errors(self, sample_id: str) -> NDArray[np.float32]:
        """Return the errors of one image, float32 [P, N]; `UserError`: some are missing."""
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


def _sample(record: Record) -> Sample:
    """Return the sample of a record, without images; texts of an item are numbered from 0."""
    item = None
    if (shape := record.get("shape")) is not None:
        item = Item((StoredImage(),) * shape[0], tuple(range(shape[1])))
    return Sample(record["sample_id"], record["label"], {}, item, record.get("group"))


def open_recording(path: Path, strategy: str | None = None) -> Recording:
    """Open a run to be replayed; a UserError if it kept no errors, or is no run.

    `strategy` is the one that the message about missing errors advises; None: the exhaustive one.
    """
    manifest = read_manifest(path)
    if manifest.identity.candidates is not None:
        raise UserError(
            f"{path} recorded the candidates of each image, and not all classes, which a replay"
            " needs. Record a run without --candidates-from."
        )
    folder = path / "errors"
    records = [
        record
        for record in asked_records(path, manifest)
        if record["error"] is None and holds_part(folder, record["sample_id"])
    ]
    if not records:
        raise UserError(
            f"{path} holds no recorded errors. Record them once with:"
            f" {recording_command(manifest, strategy)}"
        )
    if manifest.draws is None:
        raise UserError(f"{path}: its manifest does not say how many draws were recorded.")
    timesteps = read_timesteps(folder, records[0]["sample_id"], manifest.draws)
    classes = np.array(manifest.class_of_column, dtype=np.int64)
    draws = read_draws(path, len(timesteps))
    weights = np.ones(len(timesteps)) if draws is None else draws.weights
    reduction = manifest.identity.scoring.reduction or MEAN
    problem = Problem(
        classes,
        timesteps,
        weights,
        manifest.identity.seed,
        reduction=reduction,
        antithetic=manifest.identity.scoring.antithetic,
        parents=None if manifest.parents is None else np.array(manifest.parents, dtype=np.int64),
    )
    if holds_part(path / "first_order", records[0]["sample_id"]):
        problem = replace(problem, can_linearise=True)
    recording = Recording(path, manifest, tuple(records), problem)
    cell, null = recording.costs
    problem = replace(
        problem,
        cell_cost=cell,
        null_cost=null,
        linearisation_cost=recording.linearisation_cost,
    )
    recording = replace(recording, problem=problem)
    recording.errors(records[0]["sample_id"])  # refuses a run that skipped cells, before the work
    return recording


def open_draws(path: Path, strategy: str | None = None) -> Recording:
    """Open a recording as `open_recording` does; a UserError also if it has a single draw."""
    recording = open_recording(path, strategy)
    if recording.n_draws == 1:
        raise UserError(
            f"{recording.manifest.run_id} has one draw per image, on which every strategy decides"
            f" as {exhaustive()!r} does, at the same cost: there is nothing to try or to learn."
        )
    return recording


def find_recording(name: str, results: str) -> Path:
    """Return the folder of a run: of an id, a folder, or `hf:owner/name@revision` (UserError)."""
    return (
        _fetched(name.removeprefix(SCHEME)) if name.startswith(SCHEME) else find_run(name, results)
    )


@asking_hub()
def _fetched(repository: str) -> Path:
    """Return the folder of an error table of the Hub, downloaded once (UserError)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = repository.partition("@")
    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=list(RECORDING_FILES),
            endpoint=endpoint(),
        )
    except HFValidationError:
        raise UserError(
            f"{SCHEME}{repository} is not a dataset of the Hub: write it as {SCHEME}owner/name."
        ) from None
    except Exception as error:  # the Hub's client raises many kinds
        raise AbsentError(
            f"{SCHEME}{repository} is not on this machine, and {refusal(error)}. Is it a dataset"
            " that you can see, and is there a network?"
        ) from error
    if not Path(folder, MANIFEST).is_file():
        raise UserError(
            f"{SCHEME}{repository} is not an error table: it has no {MANIFEST}. `bench results"
            " export RUN --format errors` writes one."
        )
    return Path(folder)


def endpoint() -> str | None:
    """Return the address of the Hub that the environment names; None: the public one."""
    return os.environ.get("HF_ENDPOINT") or None
