"""Score a prepared run: open it, store each decision and emit events."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import JsonValue

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts, OpenRun
from bench.contracts.strategy import Problem
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.guard import notify_plugins
from bench.discovery.loading import load_plugins
from bench.errors import warn_user
from bench.machine import speeds
from bench.machine.environment import gpu, peak_memory
from bench.running.question import Executable
from bench.running.until import Until
from bench.stats.agreement import Audit
from bench.stats.metrics import summarize
from bench.store.cells import draw_table
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Fitted, Manifest, Rounded, changed_code
from bench.store.folder import missing_samples, read_manifest
from bench.store.journal import make_record
from bench.store.locking import refuse_in_use
from bench.store.questions import QuestionAnswer
from bench.store.runs import record_look
from bench.store.shipped import is_published
from bench.store.summary import Again, Summary, read_summary
from bench.store.writing import RunFolder, update_labels

R = TypeVar("R", bound=Executable)


@dataclass(frozen=True)
class Finished:
    """Result of a run whose images are all decided."""

    manifest: Manifest  # manifest of the run; its samples are the images asked for
    summary: Summary  # metrics and cost of these images
    folder: Path  # folder of the stored run, which may contain more images
    resumed: bool = False  # whether nothing was left to score
    second: Mapping[str, Again | Audit] = field(default_factory=dict)
    """Comparisons with a second decision of some images, by setting: `again` (with other noise),
    `audit` (full sweep)."""
    answer: QuestionAnswer | None = None  # answer to the question of `--until`, if there is one

    def plain(self) -> dict[str, JsonValue]:
        """Return the object that `--json` prints."""
        risk, sweep = self.manifest.identity.calibrated, self.manifest.sweep
        return {
            **self.summary.ended_by(self.answer).plain(),
            "results_dir": str(self.folder.resolve()),
            "published": is_published(self.folder),
            **{name: result.plain() for name, result in self.second.items()},
            **({"answer": self.answer.plain()} if self.answer else {}),
            **({"risk": {**risk.plain(), **sweep.plain()}} if risk and sweep else {}),
            **({"resumed": "complete"} if self.resumed else {}),
        }


def execute(
    run: R, open_run: Callable[[R], OpenRun] = Executable.open, until: Until | None = None
) -> Finished:
    """Score the images asked for that are not decided yet.

    The result covers only the images asked for, even if the stored run has more. The run is
    opened only if something is left to score. `until` gives the order of the images, and ends the
    run; then only the images that it needs are asked for. None: the run ends with its last image.

    Raises:
        UserError: the user can fix this; nothing was scored.
        StoreError: the disk is full; images decided so far are kept.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    answer: QuestionAnswer | None = None
    if until and not run.fresh:
        run = replace(run, manifest=until.resume(run.folder, run.manifest))
    missing = None if run.fresh else missing_samples(run.folder, run.manifest, run.save_errors)
    if missing is not None and read_manifest(run.folder).groups not in (None, run.manifest.groups):
        warn_user("The groups of images have changed since they were scored; use --fresh.")
    if missing == []:
        if summary := _stored_result(run.folder, run.manifest):
            parts = [read_manifest(run.folder), run.manifest]
            code = {*changed_code(parts, of_one_run=True)} - {OWN_DISTRIBUTION}
            if code:  # the toolkit raises a version if results change
                since = "has changed since this run was scored; --fresh scores it again."
                warn_user(f"The code of {' and '.join(sorted(code))} {since}")
            answer = until.answer_stored(run.folder, run.manifest) if until else None
            update_labels(run.folder, run.manifest.config)
            return Finished(run.manifest, summary, run.folder, resumed=True, answer=answer)
    else:
        refuse_in_use(run.folder)
        run.check()
    with RunFolder(run.folder, run.manifest, run.fresh) as folder:
        if run.swept is not None:
            folder.copy_sweep(*run.swept, run.save_errors)
        earlier, memory, problem = read_decisions(folder.path, run.manifest), None, None
        outstanding = folder.outstanding(run.manifest.samples, run.save_errors)
        if until:
            outstanding = until.begin(folder.path, run.manifest, outstanding)
        if outstanding:
            if folder.mixed_code:
                warn_user(folder.mixed_code)
            with closing(open_run(run)) as opened:
                _score(run, folder, opened, outstanding, earlier, until)
                memory, problem = opened.peak_memory, opened.model.problem
        if until:
            manifest, answer = until.end(folder, run.manifest)
            run = replace(run, manifest=manifest)
        finished = _finish(run, folder, float(earlier.seconds.sum()), memory)
    if problem is not None and (warning := _cost_warning(run, problem, finished.summary)):
        warn_user(warning)
    return replace(finished, answer=answer)


def _stored_result(path: Path, manifest: Manifest) -> Summary | None:
    """Return the stored summary or None; for a subset of its images, make it from their records."""
    stored = read_summary(path, manifest)
    if stored is None:
        return None
    samples, whole = {*manifest.samples}, read_manifest(path)
    if samples == {*whole.samples} and len(samples) == stored.dataset.n_samples:
        return stored
    # Total time and peak memory of a subset of the images are unknown.
    manifest = _priced(manifest, whole)
    return summarize(manifest, read_decisions(path, manifest, top=True), None, None)


def _priced(manifest: Manifest, stored: Manifest) -> Manifest:
    """Return `manifest` with what only the stored one may have: its prices and warnings.

    Merged shards may lack the prices.
    """
    names = ("linearisation_cost", "evaluation_flop", "warnings")
    return manifest.model_copy(update={name: getattr(stored, name) for name in names})


def _score(
    run: Executable,
    folder: RunFolder,
    opened: OpenRun,
    outstanding: list[str],
    earlier: Decisions,
    until: Until | None,
) -> None:
    listeners, model, problem = load_plugins().manager, opened.model, opened.model.problem
    if model.fitted:
        folder.change(fitted=Fitted.model_validate(model.fitted))
    if model.warnings:
        folder.change(warnings=list(model.warnings))
    _note_rounding(folder, model)
    if opened.device == "cuda":
        environment = {**folder.manifest.environment, "gpu": gpu(opened.device)}
        folder.change(environment=environment)
    if run.save_errors and model.levels is not None:
        folder.keep_draws(draw_table(model.levels, problem.timesteps, problem.weights))
    total, manifest = len(run.manifest.samples), run.manifest.plain()
    done = total - len(outstanding)
    rescored = np.isin(np.asarray(earlier.sample_ids), outstanding)  # failed, or errors missing
    correct = int(earlier.correct[~rescored].sum())
    notify_plugins(
        listeners, "run_started", manifest=manifest, done=done, total=total, correct=correct
    )
    seconds = equivalents = 0.0
    for decided, duration in timed(opened.score(outstanding)):
        record = make_record(decided, duration if run.timed else 0.0)
        folder.append(record, decided if run.save_errors else None, problem.timesteps)
        notify_plugins(listeners, "sample_scored", record=record)
        cost = 1.0 if run.manifest.classifier else decided.equivalents
        seconds, equivalents = seconds + duration, equivalents + cost
        if until and until.ends(record["sample_id"], record["prediction"] == record["label"]):
            break
    _note_rounding(folder, opened.model)  # another worker may have answered before the one compares
    if opened.device and seconds >= speeds.MEASURED_SECONDS:
        precision = run.manifest.identity.backbone.precision
        name = run.manifest.backbone.name
        speeds.remember_speed(name, opened.device, precision, equivalents / seconds)


def _note_rounding(folder: RunFolder, model: ModelFacts) -> None:
    if model.rounding and folder.manifest.rounding is None:
        folder.change(rounding=Rounded.model_validate(model.rounding))


def _finish(run: Executable, folder: RunFolder, earlier: float, memory: int | None) -> Finished:
    """Write the summary of all decided images and return that of the images asked for.

    `earlier` are the seconds that earlier calls spent scoring the images asked for; if they wrote a
    summary, it has the whole time.
    """
    memory = max(peak_memory() or 0, memory or 0) or None
    elapsed = time.perf_counter() - run.started
    stored, whole = read_summary(folder.path, run.manifest), folder.manifest
    # Earlier versions of the toolkit wrote it only into the summary.
    fitted = whole.fitted or (stored.fitted if stored else None)
    decided = read_decisions(folder.path, run.manifest, top=True)
    if stored and stored.dataset.n_samples <= len(decided):
        earlier = max(earlier, stored.cost.total_seconds or 0.0)
    priced = _priced(run.manifest, folder.manifest)
    summary = summarize(priced, decided, earlier + elapsed, memory)
    summary = summary.with_folder_and_fit(folder.path, fitted)
    if len(whole.samples) == len(run.manifest.samples):
        folder.finish(summary)
    elif len(all_decided := read_decisions(folder.path, whole, top=True)) == len(whole.samples):
        seconds = float(all_decided.seconds.sum()) + elapsed
        complete = summarize(whole, all_decided, seconds, memory)
        folder.finish(complete.with_folder_and_fit(folder.path, fitted))
    elif stored is None or stored.dataset.n_samples <= len(decided):
        folder.finish(summary)
    record_look(folder.path.parent, run.manifest)
    notify_plugins(load_plugins().manager, "run_finished", summary=summary.plain())
    return Finished(run.manifest, summary, folder.path)


def timed(decisions: Iterator[Decided]) -> Iterator[tuple[Decided, float]]:
    """Yield each decision with the seconds since the previous one, or since scoring began."""
    last = time.perf_counter()
    for decided in decisions:
        now = time.perf_counter()
        yield decided, now - last
        last = now


def _cost_warning(run: Executable, problem: Problem, summary: Summary) -> str | None:
    """Return a warning if the strategy cost more than what it replaces, or may decide worse."""
    manifest = run.manifest
    if manifest.items is not None or manifest.identity.calibrated is not None:
        return None  # items pose different problems; the agreement of a stated risk was tested
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
        f"It is not known how often {name} agrees with the full sweep for {used} on these images:"
        f" it may agree less often than {published}.{kept if settings else ''}"
    )
