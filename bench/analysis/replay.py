"""Replay: run a strategy on a run's recorded errors. No model, hundreds of images a second."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import identity as ids
from bench.analysis.metrics import summarize
from bench.data import Sample, limited
from bench.engine.decided import Decided
from bench.environment import environment, peak_memory
from bench.errors import UserError
from bench.plugins import load_plugins
from bench.resolve import make_strategy
from bench.store.cells import part_path, read_cells, read_timesteps
from bench.store.first_order import FirstOrder, read_first_order
from bench.store.folder import RunFolder, asked_records, read_manifest, read_summary
from bench.store.records import Record, make_record
from bench.strategy import Evaluate, Linearise, Problem, Strategy


@dataclass(frozen=True)
class Tables:
    """All that was recorded of one image.

    Attributes:
        errors: float32 [P, N].
        first_order: first-order errors, float32 [P, N], by mixture; NaN where there are none.
        linearisation_cost: of one draw, in evaluations.
    """

    errors: NDArray[np.float32]
    first_order: FirstOrder = field(default_factory=list)
    linearisation_cost: float = 0.0

    def reply(self, request: Evaluate | Linearise) -> NDArray[np.float32]:
        """Return what was asked for, float32 [prompts, draws].

        Raises:
            UserError: a linearisation that was not recorded.
        """
        if isinstance(request, Evaluate):
            return self.errors[np.ix_(request.prompts, request.draws)]
        for mixture, values in self.first_order:
            found = values[:, request.draws]
            if np.allclose(mixture, request.mixture) and not np.isnan(found).any():
                return found
        raise UserError(
            "The strategy asks for a linearisation that was not recorded. A run with --strategy"
            " full-linearised --save-errors records those at the mean of the prompts; others need"
            " the model."
        )


@dataclass(frozen=True)
class Recording:
    """A run whose strategy evaluated every cell and that kept the errors.

    Attributes:
        path: its folder.
        manifest: its manifest.
        records: the decided images, in the order of the manifest.
        problem: the question every image asked.
    """

    path: Path
    manifest: dict[str, Any]
    records: tuple[Record, ...]
    problem: Problem

    @property
    def n_draws(self) -> int:
        """N, the draws recorded."""
        return len(self.problem.timesteps)

    def samples(self, sample_ids: Iterable[str] | None = None) -> list[Sample]:
        """Return samples with id and label, without their images; None: all."""
        labels = {record["sample_id"]: record["label"] for record in self.records}
        return [Sample(i, labels[i], {}) for i in (labels if sample_ids is None else sample_ids)]

    @property
    def linearisation_cost(self) -> float:
        """What one linearised draw cost where it was recorded, in evaluations."""
        draws = sum(record.get("linearisations", 0) for record in self.records)
        extra = sum(r.get("equivalents", r["evaluations"]) - r["evaluations"] for r in self.records)
        return extra / draws if draws else 0.0

    def tables(self, sample_id: str) -> Tables:
        """Return all that was recorded of one image.

        Raises:
            UserError: some of it is missing.
        """
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
        """Return one image's errors, float32 [P, N].

        Raises:
            UserError: some are missing.
        """
        shape = (len(self.problem.class_of_prompt), self.n_draws)
        try:
            errors = read_cells(self.path / "errors", sample_id, shape)
        except FileNotFoundError:
            raise UserError(f"{self.path} holds no errors of sample {sample_id!r}.") from None
        if np.isnan(errors).any():
            raise UserError(
                f"{self.path} does not hold every cell of sample {sample_id!r}; a replay needs a"
                " run with --strategy full --save-errors."
            )
        return errors


def open_recording(path: Path) -> Recording:
    """Open a run to be replayed.

    Raises:
        UserError: it kept no errors, or is no run.
    """
    manifest = read_manifest(path)
    folder = path / "errors"
    records = [
        record
        for record in asked_records(path, manifest)
        if record["error"] is None and part_path(folder, record["sample_id"]).is_file()
    ]
    if not records:
        raise UserError(
            f"{path} holds no recorded errors. Record them once with:"
            f" bench run {manifest['dataset']['name']} --strategy full --save-errors"
        )
    # A classifier backbone has one draw, whatever its strategy's parameter says.
    draws = manifest["strategy"]["params"]["draws"] if manifest["identity"]["scoring"] else 1
    timesteps = read_timesteps(folder, records[0]["sample_id"], draws)
    classes = np.array([index for _, index in manifest["prompts"]], dtype=np.int64)
    seed = manifest["identity"]["seed"]
    problem = Problem(classes, timesteps, np.ones(len(timesteps)), seed)
    if part_path(path / "first_order", records[0]["sample_id"]).is_file():
        problem = replace(problem, can_linearise=True)
    recording = Recording(path, manifest, tuple(records), problem)
    recording.errors(records[0]["sample_id"])  # refuses a run that skipped cells, before the work
    return recording


class ReplayEngine:
    """Answers strategies from recorded errors; the same seam as an engine with a model."""

    device: str | None = None

    def __init__(self, recording: Recording) -> None:
        self.problem = recording.problem
        self.recording = recording

    def score(self, samples: Iterable[Sample], strategy: Strategy) -> Iterator[Decided]:
        """Yield each image as it is decided."""
        for sample in samples:
            yield decide(sample, self.recording.tables(sample.sample_id), strategy, self.problem)


def decide(
    sample: Sample,
    known: Tables | NDArray[np.float32],
    strategy: Strategy,
    problem: Problem,
) -> Decided:
    """Let a strategy decide one image of which all is known: its tables, or errors [P, N] alone."""
    tables = known if isinstance(known, Tables) else Tables(known)
    decided = Decided(sample)
    session = strategy.start(problem)
    while (request := session.ask()) is not None:
        decided.answer(session, request, tables.reply(request), tables.linearisation_cost)
    decided.outcome = session.outcome()
    return decided


def strategy_for(
    recording: Recording, name: str, given: Mapping[str, Any]
) -> tuple[int, dict[str, Any], Strategy]:
    """Return a strategy's version, parameters and itself, on the recorded draws.

    Raises:
        UserError: the strategy or a parameter is unknown, or another number of draws is asked for.
    """
    spec = load_plugins().strategies.get(name)
    n_draws = recording.n_draws
    own = {"draws": n_draws} if "draws" in spec.parameters else {}
    parameters, strategy = make_strategy(spec, {**own, **given})
    if parameters["draws"] != n_draws:
        raise UserError(
            f"{recording.manifest['run_id']} recorded {n_draws} draws; a replay cannot use"
            f" draws={parameters['draws']}, since other draws have other noise. Leave draws out, or"
            " record a run with that number."
        )
    if getattr(strategy, "linearises", False) and not recording.problem.can_linearise:
        raise UserError(
            f"Strategy {name!r} linearises, and {recording.manifest['run_id']} recorded errors"
            " alone. Record both once with: --strategy full-linearised --save-errors"
        )
    return spec.version, parameters, strategy


def replay(
    path: Path,
    strategy: str,
    params: Mapping[str, Any],
    results: Path,
    limit: int | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Replay a recorded run with another strategy and store it as a run of its own.

    Args:
        path: the folder of the recorded run.
        strategy: the strategy's name.
        params: its parameters; the others keep their default, and `draws` is the recorded number.
        results: the folder that the new run is stored in.
        limit: only so many images, stratified, the same ones every time.
        fresh: start over where that replay is stored already.

    Returns:
        The object that `bench run --json` prints; model seconds are null.

    Raises:
        UserError: the run has no errors, or the strategy does not fit.
    """
    started = time.perf_counter()
    recording = open_recording(path)
    version, parameters, made = strategy_for(recording, strategy, params)
    described = {"name": strategy, "version": version, "params": parameters}
    manifest = _manifest(recording, described, limit, {**params}, results)
    folder_path = results / manifest["run_id"]
    with RunFolder(folder_path, manifest, fresh) as folder:
        outstanding = folder.outstanding(save_errors=False)
        summary = None if outstanding else read_summary(folder_path)
        if summary is None or summary["dataset"]["n_samples"] != len(folder.manifest["samples"]):
            engine = ReplayEngine(recording)
            for decided in engine.score(recording.samples(outstanding), made):
                folder.append(make_record(decided, seconds=0.0), None, engine.problem.timesteps)
            summary = summarize(
                folder.manifest,
                asked_records(folder_path, folder.manifest),
                total_seconds=time.perf_counter() - started,
                peak_memory=peak_memory(),
            )
            folder.finish(summary)
    return {**summary, "results_dir": str(folder_path.resolve())}


def _manifest(
    recording: Recording,
    strategy: dict[str, Any],
    limit: int | None,
    params: dict[str, Any],
    results: Path,
) -> dict[str, Any]:
    """Return the recorded run's manifest with another strategy, and where it comes from."""
    source = recording.manifest
    identity = {
        **source["identity"],
        "strategy": strategy,
        "replayed": {"run_id": source["run_id"], "identity": ids.digest(source["identity"])},
    }
    sample_ids = [record["sample_id"] for record in recording.records]
    labels = [record["label"] for record in recording.records]
    return {
        **source,
        "run_id": ids.run_id(
            source["dataset"]["name"], source["backbone"]["name"], strategy["name"], identity
        ),
        "identity": identity,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {
            **source["config"],
            "strategy": strategy["name"],
            "params": params,
            "limit": limit,
            "results": str(results),
            "save_errors": False,
        },
        "strategy": strategy,
        "samples": limited(sample_ids, labels, limit),
        "environment": environment(),
        "replayed_from": source["run_id"],
    }
