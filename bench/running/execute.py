"""Score the images of a `Task`: load its model, store each decision, and summarise them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts, OpenRun
from bench.contracts.strategy import Problem
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.guard import notify_plugins
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.errors import warn_user
from bench.machine import speeds
from bench.machine.environment import gpu, peak_memory
from bench.running.until import Until
from bench.stats.calibration.agreement import Audit
from bench.stats.metrics.summarise import summarize, up_to_date
from bench.store.errata import touched
from bench.store.folder import missing_samples, read_manifest
from bench.store.formats.cells import draw_table
from bench.store.formats.decisions import Decisions, read_decisions
from bench.store.formats.documents import Fitted, Manifest, Rounded, changed_code
from bench.store.formats.journal import make_record
from bench.store.locking import refuse_in_use
from bench.store.questions import QuestionAnswer
from bench.store.runs import record_test_set_use
from bench.store.shipped import is_published
from bench.store.summary import Repeated, Summary, read_summary
from bench.store.writing import RunFolder, update_labels

SweptImages = tuple[Path, Sequence[str]]  # folder of a full sweep, and ids of some of its images


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be scored and stored, with a model or from recorded errors."""

    manifest: Manifest  # its samples are the images asked for
    strategy: CheckedStrategy  # decides the images
    folder: Path  # folder of the results
    started: float  # start of preparing it, on `time.perf_counter`'s clock
    open: Callable[[], OpenRun]  # loads the model or the recording
    check: Callable[[], None] = lambda: None  # UserError before anything is written or loaded
    fresh: bool = False  # whether to start over instead of resuming
    save_errors: bool = False  # whether to keep the error of every cell
    timed: bool = True  # whether times are recorded; those of a replayed recording mean nothing
    copied: SweptImages | None = None  # images whose decisions are copied from a full sweep
    until: Until | None = None
    """The order of the images, and the end of the run; None: it ends with its last image."""


@dataclass(frozen=True)
class Finished:
    """Result of a run whose images are all decided."""

    manifest: Manifest  # manifest of the run; its samples are the images asked for
    summary: Summary  # metrics and cost of these images
    folder: Path  # folder of the stored run, which may contain more images
    resumed: bool = False  # whether nothing was left to score
    second: Mapping[str, Repeated | Audit] = field(default_factory=dict)
    """Comparisons with a second decision of some images, by setting: `again` (with other noise),
    `audit` (full sweep)."""
    answer: QuestionAnswer | None = None  # answer to the question of `--until`, if there is one

    def plain(self) -> dict[str, JsonValue]:
        """Return the object that `--json` prints."""
        risk, sweep = self.manifest.identity.calibrated, self.manifest.sweep
        errata: list[JsonValue] = [touch.plain() for touch in touched(self.manifest, self.summary)]
        return {
            **self.summary.ended_by(self.answer).plain(),
            "results_dir": str(self.folder.resolve()),
            "published": is_published(self.folder),
            **{name: result.plain() for name, result in self.second.items()},
            **({"answer": self.answer.plain()} if self.answer else {}),
            **({"risk": {**risk.plain(), **sweep.plain()}} if risk and sweep else {}),
            **({"errata": errata} if errata else {}),
            **({"resumed": "complete"} if self.resumed else {}),
        }


def execute(task: Task) -> Finished:
    """Score the images asked for that are not decided yet.

    The records are the run: what they decide is never scored again, a summary is made from them and
    the manifest, and the manifest of a folder only grows. So the result covers the images asked
    for, or those that the end of the run needs, even if the stored run has more. The run is opened
    only if something is left to score.

    Raises:
        UserError: the user can fix this; nothing was scored.
        KeyboardInterrupt: the same call resumes where this one stopped.
    """
    path, manifest, until = task.folder, task.manifest, task.until
    if until and not task.fresh:
        manifest = until.resume(path, manifest)
    missing = None if task.fresh else missing_samples(path, manifest, task.save_errors)
    stored = None if missing is None else read_manifest(path)
    if stored is not None and stored.groups not in (None, manifest.groups):
        warn_user("The groups of images have changed since they were scored; use --fresh.")
    if stored and missing == [] and (summary := _stored_result(path, stored, manifest)):
        code = {*changed_code([stored, manifest], of_one_run=True)}
        if code := code - {OWN_DISTRIBUTION}:  # the toolkit raises a version if results change
            since = "has changed since this run was scored; --fresh scores it again."
            warn_user(f"The code of {' and '.join(sorted(code))} {since}")
        answer = until.answer_stored(path, manifest) if until else None
        update_labels(path, manifest.config)
        return Finished(manifest, summary, path, resumed=True, answer=answer)
    if missing != []:
        refuse_in_use(path)
        task.check()
    memory, problem, answer = None, None, None
    with RunFolder(path, manifest, task.fresh) as folder:
        if task.copied is not None:
            folder.copy_sweep(*task.copied, task.save_errors)
        earlier = read_decisions(path, folder.manifest)
        outstanding = folder.outstanding(manifest.samples, task.save_errors)
        if until:
            outstanding = until.begin(path, manifest, outstanding)
        if outstanding:
            if folder.mixed_code:
                warn_user(folder.mixed_code)
            with closing(task.open()) as opened:
                _score(task, manifest, folder, opened, outstanding, earlier)
                memory, problem = opened.peak_memory, opened.model.problem
        if until:
            manifest, answer = until.end(folder, manifest)
        summary = _finish(folder, manifest, task.started, earlier, memory)
    if problem is not None and (warning := _cost_warning(task, problem, summary)):
        warn_user(warning)
    return Finished(manifest, summary, path, answer=answer)


def _stored_result(path: Path, whole: Manifest, manifest: Manifest) -> Summary | None:
    """Return the stored summary or None; for a subset of its images, make it from their records."""
    stored, samples = read_summary(path, manifest), manifest.samples
    if stored is None:
        return None
    if {*samples} == {*whole.samples} and len(samples) == stored.dataset.n_samples:
        return up_to_date(stored, whole, lambda: read_decisions(path, whole, top=True))
    # Total time and peak memory of a subset of the images are unknown.
    manifest = whole.model_copy(update={"samples": samples})
    return summarize(manifest, read_decisions(path, manifest, top=True), None, None)


def _score(
    task: Task,
    manifest: Manifest,
    folder: RunFolder,
    opened: OpenRun,
    outstanding: list[str],
    earlier: Decisions,
) -> None:
    listeners, model, problem = load_plugins().manager, opened.model, opened.model.problem
    if model.fitted:
        folder.change(fitted=Fitted.model_validate(model.fitted))
    if model.warnings:
        every = dict.fromkeys([*(folder.manifest.warnings or ()), *model.warnings])
        folder.change(warnings=list(every))
    _note_rounding(folder, model)
    if opened.device == "cuda":
        environment = {**folder.manifest.environment, "gpu": gpu(opened.device)}
        folder.change(environment=environment)
    if task.save_errors and model.levels is not None:
        folder.keep_draws(draw_table(model.levels, problem.timesteps, problem.weights))
    total, kept = len(manifest.samples), {*manifest.samples}.difference(outstanding)
    right = earlier.right_by_id()
    notify_plugins(
        listeners,
        "run_started",
        manifest=manifest.plain(),
        done=len(kept),
        total=total,
        correct=sum(right.get(name, False) for name in kept),
    )
    seconds = equivalents = 0.0
    for decided, duration in timed(opened.score(outstanding)):
        record = make_record(decided, duration if task.timed else 0.0)
        folder.append(record, decided if task.save_errors else None, problem.timesteps)
        notify_plugins(listeners, "sample_scored", record=record)
        cost = 1.0 if manifest.classifier else decided.equivalents
        seconds, equivalents = seconds + duration, equivalents + cost
        if task.until and task.until.ends(
            record["sample_id"], record["prediction"] == record["label"]
        ):
            break
    _note_rounding(folder, opened.model)  # another worker may have answered before the one compares
    if opened.device and seconds >= speeds.MEASURED_SECONDS:
        name, precision = manifest.backbone.name, manifest.identity.backbone.precision
        speeds.remember_speed(name, opened.device, precision, equivalents / seconds)


def _note_rounding(folder: RunFolder, model: ModelFacts) -> None:
    if model.rounding and folder.manifest.rounding is None:
        folder.change(rounding=Rounded.model_validate(model.rounding))


def _finish(
    folder: RunFolder, manifest: Manifest, started: float, earlier: Decisions, memory: int | None
) -> Summary:
    """Return the summary of the images asked for; store that of the most images that are decided.

    The seconds of earlier calls are those of the `earlier` records or, if a stored summary is about
    no more images, the whole time that it has.
    """
    whole, names = folder.manifest, earlier.sample_ids.to_pylist()
    memory, elapsed = max(peak_memory() or 0, memory or 0) or None, time.perf_counter() - started
    stored = read_summary(folder.path, manifest)
    n_stored = stored.dataset.n_samples if stored else 0
    # Earlier versions of the toolkit wrote it only into the summary.
    fitted = whole.fitted or (stored.fitted if stored else None)

    def summary_of(samples: list[str]) -> Summary:
        of_samples = whole.model_copy(update={"samples": samples})
        decided, chosen = read_decisions(folder.path, of_samples, top=True), {*samples}
        spent = sum(s for name, s in zip(names, earlier.seconds, strict=True) if name in chosen)
        if stored and n_stored <= len(decided):
            spent = max(spent, stored.cost.total_seconds or 0.0)
        summary = summarize(of_samples, decided, float(spent) + elapsed, memory)
        return summary.with_folder_and_fit(folder.path, fitted)

    summary = largest = summary_of(manifest.samples)
    if len(whole.samples) > len(manifest.samples):
        of_whole = summary_of(whole.samples)
        largest = of_whole if of_whole.dataset.n_samples == len(whole.samples) else summary
    if n_stored <= largest.dataset.n_samples:
        folder.finish(largest)
    record_test_set_use(folder.path.parent, manifest)
    notify_plugins(load_plugins().manager, "run_finished", summary=summary.plain())
    return summary


def timed(decisions: Iterator[Decided]) -> Iterator[tuple[Decided, float]]:
    """Yield each decision with the seconds since the previous one, or since scoring began."""
    last = time.perf_counter()
    for decided in decisions:
        now = time.perf_counter()
        yield decided, now - last
        last = now


def _cost_warning(task: Task, problem: Problem, summary: Summary) -> str | None:
    """Return a warning if the strategy cost more than what it replaces, or may decide worse."""
    manifest = task.manifest
    if manifest.items is not None or manifest.identity.calibrated is not None:
        return None  # items pose different problems; the agreement of a stated risk was tested
    other, cost = task.strategy.replaces(problem), summary.cost.equivalents_per_image
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
    used = manifest.identity.backbone.name
    spec = load_plugins().backbones.by_name().get(used)
    trained = (spec.trained_on or "").partition("/")[0] if spec else ""
    if spec and spec.strategy == name and trained == manifest.identity.dataset.name:
        return None
    kept = f" With {settings} it keeps the winners that {published} keeps, unless a bound fails."
    return (
        f"It is not known how often {name} agrees with the full sweep for {used} on these images:"
        f" it may agree less often than {published}.{kept if settings else ''}"
    )
