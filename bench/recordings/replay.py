"""Replay: run a strategy on a run's recorded errors. No model, hundreds of images a second."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Problem, Strategy
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import limited
from bench.machine.environment import environment, peak_memory
from bench.recordings.recording import Recording, Tables, open_recording
from bench.running.resolve import make_strategy
from bench.stats.metrics import summarize
from bench.store import identity as ids
from bench.store.folder import RunFolder, asked_records, read_summary
from bench.store.records import make_record


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
        "environment": environment(load_plugins().versions()),
        "replayed_from": source["run_id"],
    }
