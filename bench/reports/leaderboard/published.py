"""Validate published results: small copies of complete runs in `results/published/`.

Submitted files may contain anything. Whatever follows from a run's identity, its records or
registered specs is computed again and compared; `TRUST` states what cannot be checked.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.contracts.specs import (
    GENERATED,
    UNKNOWN,
    BackboneSpec,
    ErratumSpec,
    trained_on_generated,
)
from bench.discovery.loading import load_plugins
from bench.errors import UserError, quoted
from bench.inputs.data import DataSource, load_classes
from bench.machine.files import write_atomically
from bench.machine.stages import counted
from bench.reports.leaderboard.rows import REPORTED_FILE, read_reported
from bench.reports.rows import declared_images
from bench.stats.calibration.agreement import audit_of
from bench.stats.metrics.summarise import summarize
from bench.store.errata import all_errata, touched
from bench.store.folder import MANIFEST, folders_with, list_runs, read_manifest
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import read_json, to_json
from bench.store.formats.identity import digest, prompts_digest, run_id
from bench.store.formats.journal import JOURNAL
from bench.store.locking import LOCK, SHORT_LOCK
from bench.store.runs import StoredRun, read_run
from bench.store.summary import AUDIT, SUMMARY, Summary, read_swept

PUBLISHED_FILES = (MANIFEST, JOURNAL, SUMMARY.name)
ALLOWED_FILES = (*PUBLISHED_FILES, AUDIT.name)
MAX_RUN_BYTES = 2_000_000  # 420 images take about 0.1 MB
COST_TOLERANCE = 1e-3  # relative; the costs in records are rounded to six significant digits
MARKED = "errata.json"  # file: published run → errata that are known to touch it
FROM_MANIFEST = ("run_id", "dataset", "backbone", "strategy")  # fields of a summary
# Fields that do not follow from the records; see `TRUST`.
TRUSTED = frozenset({"fitted", "results_dir", "linearisation_cost", "replayed_from", "cleared"})
TRUST = (
    "Taken on trust: the records of the images, the hashes of data and weights, times and memory;"
    " the run's description of data, classes and backbones that are not registered here; metrics"
    " of plugins that are not installed here; and reported results. All other values were computed"
    " again."
)


def recompute(published: Path) -> list[Path]:
    """Compute summaries again whose promises were wrong, and return those that were written.

    A run keeps what its records do not tell, and errata that these clear no longer touch it.
    """
    promises = {spec.name for spec in all_errata() if _follows_from_records(spec)}
    written = []
    for path in list_runs(published):
        run = read_run(path)
        stale = [t.name for t in touched(run.manifest, run.summary) if t.state != "cleared"]
        if run.summary is None or not (cleared := sorted(promises.intersection(stale))):
            continue
        new = summarize(run.manifest, run.decided(top=True), run.summary.cost.total_seconds, None)
        metrics = {**run.summary.metrics.plain(), **new.metrics.plain()}
        content: dict[str, Any] = {**run.summary.plain(), "metrics": metrics}
        content["cleared"] = sorted({*(run.summary.cleared or []), *cleared})
        write_atomically(path / SUMMARY.name, to_json(content))
        written.append(path / SUMMARY.name)
    return written


def _follows_from_records(spec: ErratumSpec) -> bool:
    """Whether what was wrong is in the metrics of a summary, which records tell."""
    fields = (name for conditions in spec.where for name in conditions)
    return spec.effect == "promise" and any(name.startswith("summary.metrics") for name in fields)


def mark(published: Path) -> Path:
    """Write which errata touch which published runs, and return the file."""
    runs = ((path.name, _touching(read_run(path))) for path in list_runs(published))
    write_atomically(published / MARKED, to_json({run: names for run, names in runs if names}))
    return published / MARKED


def _touching(run: StoredRun) -> list[str]:
    """Return the errata that say that a published run is, or may be, wrong."""
    return sorted(touch.name for touch in touched(run.manifest, run.summary) if touch.mark)


def _read_marks(published: Path) -> Mapping[str, Any]:
    """Return the errata that each published run is marked with."""
    marks = read_json(published, MARKED) if (published / MARKED).exists() else {}
    return marks if isinstance(marks, dict) else {}


def validate(published: Path) -> list[str]:
    """Return the problems of the published results in a folder, one line each."""
    totals, runs, marks = Totals(published), list_runs(published), _read_marks(published)
    errors = [
        f"{run.name}: {problem}"
        for run in counted(runs, "Validating", len(runs), "runs")
        for problem in find_problems(run, totals, marks.get(run.name, []))
    ]
    for place in sorted(folders_with(published, REPORTED_FILE)):
        try:
            read_reported(place / REPORTED_FILE)
        except UserError as error:
            errors.append(str(error))
    return errors


def find_problems(
    run: Path, totals: "Totals", marked: Collection[str] | None = None
) -> Iterator[str]:
    """Yield the problems of a published run, also in comparison with the `totals` of other runs.

    An erratum that touches it is a problem unless its name is among those `marked`. With None as
    `marked`, no erratum is a problem.
    """
    try:
        stored = read_run(run)
    except UserError as error:
        yield str(error)
        return
    manifest, summary = stored.manifest, stored.summary
    if marked is not None:
        for name in (name for name in _touching(stored) if name not in marked):
            yield f"the erratum {name} touches it: mark it with `bench results validate --mark`"
    if summary is None:
        yield "it has no summary.json, or one that contradicts its records"
        return
    expected = run_id(
        manifest.dataset.name, manifest.backbone.name, manifest.strategy.name, manifest.identity
    )
    if not expected == manifest.run_id == summary.run_id == run.name:
        yield f"by its identity it is {expected}, not {manifest.run_id} in {run.name}"
    yield from find_contradictions(manifest, totals)
    if summary.replayed_from != manifest.replayed_from:
        yield "its manifest and its summary name different replayed runs"
    decided = stored.decided(top=True)
    if len(decided) != len(manifest.samples) or len(decided) != summary.dataset.n_samples:
        yield f"{len(decided)} records for {len(manifest.samples)} samples"
        return
    yield from _summary_problems(manifest, summary, decided)
    swept = read_swept(run, manifest)
    audit = audit_of(swept, manifest, decided)
    if len(swept) != (counted := audit.images if audit else 0):
        yield (
            f"{AUDIT.name} has {len(swept):,} images, of which {counted:,} are the first of its"
            " random order; hand-picked images say nothing about the others"
        )
    yield from _file_problems(run)


def _summary_problems(manifest: Manifest, summary: Summary, decided: Decisions) -> Iterator[str]:
    """Yield what in a stored summary does not follow from the manifest and the records."""
    cost = summary.cost
    computed = summarize(manifest, decided, cost.total_seconds, cost.peak_memory_bytes)
    ours: Any = computed.plain()
    if manifest.environment.get("plugins", {}).keys() - load_plugins().versions().keys():
        # Metrics of plugins that are not installed here cannot be computed.
        ours["metrics"] = {**summary.metrics.plain(), **ours["metrics"]}
    yield from _differences("", ours, summary.plain())
    if cost.flop_per_image is not None and manifest.evaluation_flop is None:
        yield "it has operations per image, but not those of an evaluation"
    if cost.linearisation_cost is not None:
        gradients = computed.cost.linearisations * cost.linearisation_cost
        priced = (computed.cost.evaluations + gradients) / len(decided)
        per_image = computed.cost.equivalents_per_image
        if not math.isclose(priced, per_image, rel_tol=COST_TOLERANCE):
            yield (
                f"its cost per image is {per_image} by its records, {priced} by its price of a"
                " linearised draw"
            )


def _file_problems(run: Path) -> Iterator[str]:
    for path in sorted(run.rglob("*")):
        if path.relative_to(run).as_posix() not in (*ALLOWED_FILES, LOCK, SHORT_LOCK):
            yield f"{path.name} does not belong there; expected only {', '.join(ALLOWED_FILES)}"
    size = sum((run / name).stat().st_size for name in PUBLISHED_FILES)
    if size > MAX_RUN_BYTES:
        yield f"it takes {size:,} bytes, more than {MAX_RUN_BYTES:,}"


def _differences(field: str, computed: Any, stored: Any) -> Iterator[str]:
    """Yield the fields of a stored summary that differ from the computed one.

    `field` is the dotted name of the field whose values are compared; empty: the whole summary.
    """
    if isinstance(computed, dict) and isinstance(stored, dict):
        for name in sorted(stored.keys() - TRUSTED):
            yield from _differences(f"{field}.{name}".strip("."), computed.get(name), stored[name])
        return
    # Earlier versions left some values out, and wrote a top-5 accuracy of 1 for five classes or
    # fewer, which have none now.
    of_five_classes = ("metrics.top5_accuracy", None, 1)
    comparable = stored is not None and (field, computed, stored) != of_five_classes
    if comparable and not _is_close(computed, stored, COST_TOLERANCE * field.startswith("cost")):
        source = "manifest" if field.partition(".")[0] in FROM_MANIFEST else "records"
        yield f"its {field} is {computed} by its {source}, {stored} by its summary"


def _is_close(computed: Any, stored: Any, tolerance: float) -> bool:
    if isinstance(computed, list) and isinstance(stored, list):
        pairs = zip(computed, stored, strict=False)
        return len(computed) == len(stored) and all(_is_close(*pair, tolerance) for pair in pairs)
    if isinstance(computed, float) and isinstance(stored, float | int):
        return math.isclose(computed, stored, rel_tol=tolerance, abs_tol=1e-9)
    return bool(computed == stored)


class Totals:
    """The numbers of images that runs in the folder `published` state for their whole splits."""

    def __init__(self, published: Path) -> None:
        self._totals: dict[str, dict[str, int]] = {}
        for path in list_runs(published):
            with suppress(UserError):
                manifest = read_manifest(path)
                if not manifest.private_data:
                    runs = self._totals.setdefault(digest(manifest.identity.dataset.plain()), {})
                    runs[manifest.run_id] = manifest.dataset.n_total

    def problem(self, manifest: Manifest) -> str | None:
        """Return why the number of images that a run states for its split is wrong, or None."""
        data = manifest.identity.dataset
        runs = self._totals.get(digest(data.plain()), {})  # on the same images
        total = manifest.dataset.n_total
        others = {other for run_id, other in runs.items() if run_id != manifest.run_id}
        if others - {total}:
            theirs = " and ".join(f"{other:,}" for other in sorted(others))
            return f"its n_total is {total:,}, but other runs on the same images have {theirs}"
        size = None if others else declared_images(manifest)
        if size is None or size == total:
            return None
        return f"its n_total is {total:,}, but {data.name}/{data.split} has {size:,}"


def find_contradictions(manifest: Manifest, totals: Totals) -> Iterator[str]:
    """Yield contradictions between a manifest and its identity, other runs or registered specs."""
    identity, data, backbone = manifest.identity, manifest.dataset, manifest.backbone
    replayed = identity.replayed.run_id if identity.replayed else None
    pairs = {
        "dataset's version": (data.version, identity.dataset.version),
        "split": (data.split, identity.dataset.split),
        "backbone's version": (backbone.version, identity.backbone.version),
        "dtype": (backbone.dtype, identity.backbone.dtype),
        "strategy": (manifest.strategy.plain(), identity.strategy.plain()),
        "replayed run": (manifest.replayed_from, replayed),
    }
    if manifest.items is None:
        pairs["prompts' hash"] = (prompts_digest(manifest.prompts), identity.prompts)
    for name, (stated, hashed) in pairs.items():
        if stated != hashed:
            yield f"its {name} is {quoted(stated)}, but {quoted(hashed)} by its identity"
    if len(set(manifest.samples)) < len(manifest.samples):
        yield "it lists a sample twice"
    if len(manifest.samples) > data.n_total:
        yield f"it has {len(manifest.samples):,} samples, but only {data.n_total:,} images"
    if not manifest.private_data:
        if problem := totals.problem(manifest):
            yield problem
        yield from _class_problems(manifest)
    spec = load_plugins().backbones.by_name().get(identity.backbone.name)
    if spec is not None and spec.version == identity.backbone.version:
        yield from _training_problems(manifest, spec)


def _class_problems(manifest: Manifest) -> Iterator[str]:
    identity = manifest.identity.dataset
    spec = load_plugins().datasets.by_name().get(identity.name)
    if spec is None or spec.version != identity.version or spec.classes is None:
        return
    if manifest.config.plain().get("class_names"):
        return
    registered = load_classes(DataSource(spec)).names
    if len(registered) != len(manifest.classes):
        yield f"it has {len(manifest.classes)} classes, but {identity.name} has {len(registered)}"
        return
    for number, (stated, expected) in enumerate(zip(manifest.classes, registered, strict=True)):
        if stated != expected:
            yield (
                f"its class {number} is {quoted(stated)}, but that of {identity.name} is"
                f" {quoted(expected)}"
            )
            return


def _training_problems(manifest: Manifest, spec: BackboneSpec) -> Iterator[str]:
    learned, stated = manifest.identity.learned_from, manifest.backbone.trained_on
    if manifest.config.weights is not None:
        expected: str | None = UNKNOWN
    elif learned is not None and learned.split.startswith(f"{GENERATED}:"):
        made_by = trained_on_generated(learned.split.split(":")[1], None)
        if str(stated).partition(" + ")[0] == made_by:
            return  # the data of the generator follow
        expected = made_by
    elif learned is not None:
        expected = f"{manifest.dataset.name}/{learned.split}"
    else:
        expected = spec.trained_on
    weighting = str(manifest.config.plain().get("weighting"))
    learned_more = manifest.identity.candidates is not None or weighting.startswith("learned")
    if learned_more and (expected is None or str(stated).startswith(f"{expected} + ")):
        return  # the candidates or draw weights were learned from the data of another run
    if stated != expected:
        yield f"its trained_on is {quoted(stated)}, but {quoted(expected)} for {spec.name}"
