"""`execute` scores a prepared run: the engine, the store and the events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.decision import Decided
from bench.contracts.strategy import Problem
from bench.discovery.guard import tell
from bench.discovery.loading import load_plugins
from bench.errors import UserError, warn_user
from bench.machine.environment import peak_memory, remember_speed
from bench.running.executors.protocol import Executable, Executor, LocalExecutor, OpenExecutor
from bench.running.until import QuestionWatch
from bench.stats.agreement import Audit
from bench.stats.metrics import summarize
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Fitted, Manifest
from bench.store.draw_table import draw_table
from bench.store.folder import missing_samples, read_manifest, read_summary
from bench.store.looks import record_look
from bench.store.questions import QuestionAnswer
from bench.store.records import make_record
from bench.store.summary import Again, Summary
from bench.store.writing import RunFolder, label, refuse_in_use

CHECK_SECONDS = 2.0  # between two events about a question that is open


@dataclass(frozen=True)
class Finished:
    """A run whose images are all decided."""

    manifest: Manifest  # the run, with the images asked for as its samples
    summary: Summary  # metrics and cost of these images
    folder: Path  # where the run is stored, perhaps with more images than these
    resumed: bool = False  # whether nothing was left to score
    second: Mapping[str, Again | Audit] = field(default_factory=dict)
    """A second look at some images, by the setting that asks for it: `again`, with other noise;
    `audit`, with every prompt on every draw."""
    answer: QuestionAnswer | None = (
        None  # what the images answered, if a question was to end the run
    )

    def plain(self) -> dict[str, Any]:
        """Return the object behind `--json`."""
        risk, sweep = self.manifest.identity.calibrated, self.manifest.sweep
        return {
            **self.summary.ended_by(self.answer).plain(),
            "results_dir": str(self.folder.resolve()),
            **{name: result.plain() for name, result in self.second.items()},
            **({"answer": self.answer.plain()} if self.answer else {}),
            **({"risk": {**risk.plain(), **sweep.plain()}} if risk and sweep else {}),
            **({"resumed": "complete"} if self.resumed else {}),
        }


def execute(
    run: Executable, open_executor: OpenExecutor = LocalExecutor, watch: QuestionWatch | None = None
) -> Finished:
    """Score the images asked for that are not decided yet.

    The result is of these images only, also where the stored run has more of them. The executor is
    opened only where there is something to score. With `watch`, images are scored in its order
    until its question is answered, and the result is of the images that this takes.

    Raises:
        UserError: the user can fix this; nothing was scored.
        StoreError: the disk is full; what was decided is kept.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    answer: QuestionAnswer | None = None
    if (
        watch is not None
        and not run.fresh
        and missing_samples(run.folder, run.manifest, False) is not None
    ):
        watch.adopt(read_decisions(run.folder, run.manifest))
        watch.ask(run.folder)
        run.manifest = watch.narrowed(run.manifest)
    if not run.fresh and missing_samples(run.folder, run.manifest, run.save_errors) == []:
        if summary := _stored_result(run.folder, run.manifest):
            answer = watch.keep(run.folder) if watch else None
            label(run.folder, run.manifest.config)
            return Finished(run.manifest, summary, run.folder, resumed=True, answer=answer)
    else:
        refuse_in_use(run.folder)
        run.check()
    with RunFolder(run.folder, run.manifest, run.fresh) as folder:
        if run.sweep is not None:
            folder.take_over(*run.sweep, run.save_errors)
        earlier, memory, problem = read_decisions(folder.path, run.manifest), None, None
        outstanding = folder.outstanding(run.manifest.samples, run.save_errors)
        if watch is not None:
            watch.ask(folder.path)
            outstanding = watch.outstanding(outstanding)
        if outstanding:
            if folder.mixed_code:
                warn_user(folder.mixed_code)
            with closing(open_executor(run)) as executor:
                _score(run, folder, executor, outstanding, earlier, watch)
                memory, problem = executor.peak_memory, executor.problem
        if watch is not None:
            run.manifest = watch.narrowed(run.manifest)
            folder.narrow(run.manifest.samples)
            answer = watch.keep(folder.path)
        finished = _finish(run, folder, float(earlier.seconds.sum()), memory)
    if problem is not None and (warning := _cost_warning(run, problem, finished.summary)):
        warn_user(warning)
    return replace(finished, answer=answer)


def _stored_result(path: Path, manifest: Manifest) -> Summary | None:
    """Return the stored summary, or of fewer images one made from their records; None: none."""
    stored = stored_summary(path)
    if stored is None:
        return None
    if len(manifest.samples) == stored.dataset.n_samples == len(read_manifest(path).samples):
        return stored
    # The total time and the memory of a part of a run are not known.
    manifest = _priced(manifest, read_manifest(path))
    return summarize(manifest, read_decisions(path, manifest, top=True), None, None)


def _priced(manifest: Manifest, stored: Manifest) -> Manifest:
    """Return `manifest` with the stored run's cost of linearising: a run in parts may have none."""
    return manifest.model_copy(update={"linearisation_cost": stored.linearisation_cost})


def _score(
    run: Executable,
    folder: RunFolder,
    executor: Executor,
    outstanding: list[str],
    earlier: Decisions,
    watch: QuestionWatch | None,
) -> None:
    listeners, problem = load_plugins().manager, executor.problem
    if executor.fitted:
        folder.keep_fitted(Fitted.model_validate(executor.fitted))
    if run.save_errors and executor.levels is not None:
        folder.keep_draws(draw_table(executor.levels, problem.timesteps, problem.weights))
    total, manifest = len(run.manifest.samples), run.manifest.plain()
    done = total - len(outstanding)
    again = np.isin(np.asarray(earlier.sample_ids), outstanding)  # failed, or without their errors
    correct = int(earlier.correct[~again].sum())
    tell(listeners, "run_started", manifest=manifest, done=done, total=total, correct=correct)
    seconds = equivalents = next_check = 0.0
    for decided, duration in timed(executor.score(outstanding)):
        record = make_record(decided, duration if run.timed else 0.0)
        folder.append(record, decided if run.save_errors else None, problem.timesteps)
        tell(listeners, "sample_scored", record=record)
        seconds, equivalents = seconds + duration, equivalents + decided.equivalents
        right = record["prediction"] == record["label"]
        if watch is not None and watch.add(record["sample_id"], right):
            break
        if watch is not None and time.monotonic() > next_check:
            tell(listeners, "question_checked", **watch.state())
            next_check = time.monotonic() + CHECK_SECONDS
    if executor.device and seconds > 1:
        backbone = run.manifest.backbone
        remember_speed(backbone.name, executor.device, backbone.dtype, equivalents / seconds)


def _finish(run: Executable, folder: RunFolder, earlier: float, memory: int | None) -> Finished:
    """Write the summary of all decided images; return that of the images asked for.

    `earlier` is the seconds that earlier starts spent on these images; `memory` in bytes.
    """
    memory = max(peak_memory() or 0, memory or 0) or None
    here = time.perf_counter() - run.started
    stored, whole = stored_summary(folder.path), folder.manifest
    # Earlier versions of the toolkit wrote it into the summary alone.
    fitted = whole.fitted or (stored.fitted if stored else None)
    decided = read_decisions(folder.path, run.manifest, top=True)
    priced = _priced(run.manifest, folder.manifest)
    summary = summarize(priced, decided, earlier + here, memory)
    summary = summary.with_folder_and_fit(folder.path, fitted)
    if len(whole.samples) == len(run.manifest.samples):
        folder.finish(summary)
    elif not folder.outstanding(whole.samples, save_errors=False):
        every = read_decisions(folder.path, whole, top=True)
        largest = summarize(whole, every, float(every.seconds.sum()) + here, memory)
        folder.finish(largest.with_folder_and_fit(folder.path, fitted))
    elif stored is None or stored.dataset.n_samples <= len(decided):
        folder.finish(summary)
    record_look(folder.path.parent, run.manifest)
    tell(load_plugins().manager, "run_finished", summary=summary.plain())
    return Finished(run.manifest, summary, folder.path)


def stored_summary(path: Path) -> Summary | None:
    """Return the summary of a run; None where it has none, or a damaged one."""
    try:
        return read_summary(path)
    except UserError:  # damaged: it is made again from the records
        return None


def timed(decisions: Iterator[Decided]) -> Iterator[tuple[Decided, float]]:
    """Yield each decision with the seconds since the previous one, or since scoring began."""
    last = time.perf_counter()
    for decided in decisions:
        now = time.perf_counter()
        yield decided, now - last
        last = now


def _cost_warning(run: Executable, problem: Problem, summary: Summary) -> str | None:
    """Return a warning of a strategy that may be worse than the one that it replaces.

    It took more, or nobody has measured how often it decides as the full sweep with such a backbone
    on such images.
    """
    manifest = run.manifest
    if manifest.items is not None or manifest.identity.calibrated is not None:
        return None  # items differ in their problems; a stated risk is measured
    other, cost = run.strategy.replaces(problem), summary.cost.equivalents_per_image
    if other is None:
        return None
    name, published = manifest.strategy.name, other.strategy
    settings = " ".join(f"{key}={value}" for key, value in other.settings.items())
    if cost > other.equivalents:
        return (
            f"{name} took {cost:,.0f} evaluation equivalents per image, more than {published}"
            f" takes on the same draws ({other.equivalents:,.0f}): these prompts can hardly be told"
            f" apart. With {settings or f'--strategy {published}'} no image costs more than that."
        )
    backbones, used = load_plugins().backbones, manifest.identity.backbone.name
    spec = backbones.get(used) if used in backbones else None
    trained = (spec.trained_on or "").partition("/")[0] if spec else ""
    if spec and spec.strategy == name and trained == manifest.identity.dataset.name:
        return None
    kept = f" With {settings} it keeps the winners that {published} keeps, unless a bound fails."
    return (
        f"How often {name} decides as the full sweep with {used} on these images is not known: it"
        f" may be less often than {published}.{kept if settings else ''}"
    )
