"""Comparison of two stored runs: their difference, its test, warnings, and settings that differ."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from pydantic import JsonValue

from bench.contracts.specs import provenance, training_group
from bench.errors import UserError, images_failed, quoted
from bench.stats.inference.difference_tests import clusters_of, paired_on
from bench.stats.inference.paired import ClassDifference, Paired, class_differences
from bench.stats.inference.shares import mean_interval
from bench.stats.metrics.metric_values import MetricDifference
from bench.store.formats.decisions import Decisions, shared_rows
from bench.store.formats.documents import Manifest, changed_code
from bench.store.formats.identity import Identity
from bench.store.questions import QuestionAnswer

MACHINE = ("platform", "cpus")  # keys of a manifest's environment; times compare if all agree


class Comparison(Paired):
    """Comparison of run B with run A, the baseline, on the samples that both decided."""

    run_a: str  # id of A
    run_b: str  # id of B
    published_a: bool = False  # whether A is a published run
    published_b: bool = False  # whether B is a published run
    tested: MetricDifference | None = None  # the tested metric; None if it is accuracy
    significant: bool  # whether p <= 0.05 for the tested metric
    regression: bool  # whether B is significantly worse in the tested metric
    agreement: float  # share of samples with equal predictions
    agreement_ci95: tuple[float, float]
    per_class: list[ClassDifference]  # accuracies of each class with samples; empty of items
    cost_ratio: float | None  # evaluation equivalents, B / A
    seconds_ratio: float | None  # scoring time, B / A
    break_even: dict[str, int | None] | None = None
    """`seconds` or `flop` → the number of images from which on B, or else A, costs less although
    its images to learn from were generated first; None: never. None if neither's were."""
    not_divided: dict[str, str]  # `cost` or `seconds` → reason why its ratio is meaningless
    differences: dict[str, list[Any]]  # settings that differ, by the names of options → [A's, B's]
    warnings: list[str]  # warnings on the validity of the comparison
    sequential: QuestionAnswer | None = None  # sequential test in random order, if requested


def compare_decided(
    manifests: tuple[Manifest, Manifest], decided: tuple[Decisions, Decisions]
) -> Comparison:
    """Compare the accuracies of A, the baseline, and B on the samples that both decided.

    Both arguments are (A, B). Other differences than these give a warning in the result. Raises
    UserError if the dataset, its version, the split, the classes or the label of a sample differ,
    or the runs share no decided sample.
    """
    check_comparable(*manifests)
    a, b = decided
    rows_a, rows_b = shared_rows(a, b)
    name_a, name_b = (manifest.run_id for manifest in manifests)
    if not len(rows_a):
        why = data_apart(*manifests)
        reason = f": {why}" if why else ""
        raise UserError(f"{name_a} and {name_b} share no decided sample{reason}.")
    labels = a.labels[rows_a]
    if (labels != b.labels[rows_b]).any():
        raise UserError(f"{name_a} and {name_b} give the same samples different labels.")
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    agree = (a.predictions[rows_a] == b.predictions[rows_b]) & ~a.failed[rows_a]
    n, clusters = len(labels), clusters_of(a, b, rows_a, rows_b)
    paired = paired_on(a, b, rows_a, rows_b)
    significant = paired.difference.significant
    per_class = class_differences(labels, right_a, right_b, manifests[0].classes)
    reasons = _not_divided(*manifests)
    costs = None if "cost" in reasons else _ratio(a.equivalents[rows_a], b.equivalents[rows_b])
    seconds = None if "seconds" in reasons else _ratio(a.seconds[rows_a], b.seconds[rows_b])
    return Comparison(
        run_a=name_a,
        run_b=name_b,
        **dict(paired),
        significant=significant,
        regression=significant and paired.difference.estimate < 0,
        agreement=float(agree.mean()),
        agreement_ci95=mean_interval(agree, clusters),
        per_class=[] if manifests[0].items else per_class,
        cost_ratio=costs,
        seconds_ratio=seconds,
        not_divided=reasons,
        differences=differences(*manifests),
        warnings=_warnings(manifests, (a, b), n),
    )


def check_comparable(a: Manifest, b: Manifest) -> None:
    """Raise a UserError if dataset, version of the dataset, split or classes of two runs differ."""
    names = {"name": "dataset", "version": "version of the dataset", "split": "split"}
    for field, name in names.items():
        of_a, of_b = getattr(a.dataset, field), getattr(b.dataset, field)
        if of_a != of_b:
            raise UserError(
                f"These runs are not comparable, because the {name} differs: {a.run_id} has"
                f" {of_a!r}, {b.run_id} has {of_b!r}."
            )
    if a.classes != b.classes:
        odd = sorted(set(a.classes) ^ set(b.classes))
        what = f"only one has {odd[0]!r}" if odd else "their order differs"
        raise UserError(
            f"These runs are not comparable, because the classes of {a.run_id} and {b.run_id}"
            f" differ: {what}."
        )


def data_apart(a: Manifest, b: Manifest) -> str | None:
    """Return why two runs on splits of one name do not have the same data; None if they have."""
    of_a, of_b = a.identity.dataset, b.identity.dataset
    if of_a.fingerprint == of_b.fingerprint:
        return None
    counts = [m.dataset.n_total for m in (a, b)]
    if counts[0] != counts[1]:
        return f"one split has {counts[0]:,} images, the other {counts[1]:,}"
    if {*a.samples}.isdisjoint(b.samples):
        ids = " and ".join(quoted(m.samples[0]) for m in (a, b))
        return f"their images have other ids, such as {ids}, by which images are recognised"
    if of_a.decoding != of_b.decoding:
        return "their images are decoded by other rules"
    return "the content of images or labels differs"


def _not_divided(a: Manifest, b: Manifest) -> dict[str, str]:
    """Return the reasons why costs or times of two runs have no meaningful ratio."""
    reasons = {}
    if a.classifier and b.classifier:
        reasons["cost"] = "one pass per image each"
    elif a.classifier or b.classifier:
        kinds = ["passes of a classifier" if m.classifier else "evaluations" for m in (a, b)]
        reasons["cost"] = f"one of {kinds[0]}, one of {kinds[1]}: not divided"
    if a.replayed_from or b.replayed_from:
        reasons["seconds"] = "a replay runs no model"
    elif a.created[:10] != b.created[:10]:
        reasons["seconds"] = "measured on different days: not divided"
    elif any(a.environment.get(n) != b.environment.get(n) for n in MACHINE):
        reasons["seconds"] = "measured on different machines: not divided"
    return reasons


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Return the sum of B divided by that of A; None if one of them is 0."""
    return float(b.sum() / a.sum()) if a.sum() > 0 and b.sum() > 0 else None


def _warnings(manifests: Sequence[Manifest], decided: Sequence[Decisions], n: int) -> list[str]:
    warnings = []
    of_a, of_b = (manifest.identity.dataset.fingerprint for manifest in manifests)
    if of_a != of_b:
        warnings.append(
            f"The data differs (fingerprint {of_a[:8]} in A, {of_b[:8]} in B): samples"
            " are paired by id, but images were added, removed, changed or re-encoded."
        )
    for manifest, own in zip(manifests, decided, strict=True):
        name, requested = manifest.run_id, len(manifest.samples)
        if len(own) < requested:
            warnings.append(f"{name} is incomplete: {len(own)} of {requested} images are decided.")
        if len(own) > n:
            warnings.append(
                f"{len(own) - n} of {name}'s {len(own)} images are left out, because the other"
                " run lacks them."
            )
        if failed := int(own.failed.sum()):
            warnings.append(f"{images_failed(failed)} in {name}, counted as wrong.")
    total = manifests[0].dataset.n_total
    if n < total:
        warnings.append(f"This is a subset: {n} of the split's {total} images.")
    if training := training_warning(*manifests):
        warnings.append(training)
    a, b = (manifest.identity for manifest in manifests)
    if a.prompts != b.prompts and not (a.learned_from or b.learned_from):  # learned: no prompts
        warnings.append("Their prompts differ.")
    if changed := changed_code(manifests):
        warnings.append(f"The code of {' and '.join(changed)} changed between the runs.")
    return warnings


TwoValues = list[Any]
"""A's value and B's value."""
Settings = dict[str, JsonValue]
"""Settings that affect a run's results, by the names of their options."""

# Dotted name in the identity → name of the setting. All others only lose their prefix.
_NAMES = {
    "version": "identity version",
    "dataset.name": "dataset",
    "dataset.fingerprint": "data",
    "backbone.name": "backbone",
    "backbone.version": "backbone version",
    "scoring.draw_plan": "plan",
    "candidates.run_id": "candidates_from",
    "candidates.top": "top",
    "calibrated.run_id": "calibrated_on",
    "calibrated.risk": "risk",
    "strategy.name": "strategy",
    "strategy.version": "strategy version",
    "replayed.run_id": "made",
    "replayed.identity": "made",
}
_PREFIXES = ("backbone.parameters.", "backbone.", "scoring.", "strategy.params.", "dataset.")

OF_BACKBONE = "backbone "  # prefix of a backbone's parameter that has the name of a setting
SHARED = "shared"  # noise of the seed that is the same for all images


def run_settings(manifest: Manifest) -> Settings:
    """Return the settings that affect a run's results, with readable values instead of hashes."""
    settings: Settings = {}
    readable = _readable(manifest)
    for dotted, value in _flat(manifest.identity.plain()):
        prefix = next((prefix for prefix in _PREFIXES if dotted.startswith(prefix)), "")
        name = _NAMES.get(dotted, dotted.removeprefix(prefix))
        if prefix == "backbone.parameters." and name in Identity.model_fields:  # such as `seed`
            name = f"{OF_BACKBONE}{name}"
        shown = readable.get(dotted, value)
        if shown is not None and not re.fullmatch("[0-9a-f]{64}", str(shown)):  # a SHA-256
            settings[name] = shown
    settings.setdefault("made", "live")  # otherwise the run that this one was replayed from
    return settings


def _readable(manifest: Manifest) -> Settings:
    """Return readable values by dotted name in the identity; None to keep the stored value out."""
    identity, config, backbone = manifest.identity, manifest.config, manifest.identity.backbone
    template, digest = config.template, identity.prompts[:8]
    prompts = " · ".join(template) if isinstance(template, list) else template
    if not prompts:
        prompts = f"“{manifest.prompts[0][0]}”… ({digest})" if manifest.prompts else digest
    seed, noise = f"seed {identity.seed}", identity.scoring.noise
    if noise and noise.startswith(seed):
        noise = noise.removeprefix(seed).strip() or SHARED
    weighting = identity.scoring.weighting
    if weighting and weighting.startswith("sha256 "):
        file, sha = config.plain().get("weighting", "a file"), weighting.removeprefix("sha256 ")
        weighting = f"{file} ({sha[:8]})"
    source = f"replayed from {manifest.replayed_from}"
    return {
        "dataset.fingerprint": identity.dataset.fingerprint[:8],
        "prompts": config.prompts or prompts,
        "hierarchy": identity.hierarchy and identity.hierarchy[:8],
        "backbone.dtype": backbone.precision,
        "backbone.tf32": None if backbone.precision == "tf32" else backbone.tf32,
        "backbone.weights": backbone.weights
        and f"{manifest.backbone.weights} ({backbone.weights[:8]})",
        "scoring.noise": noise,
        "scoring.weighting": weighting,
        "replayed.run_id": source,
        "replayed.identity": source,
    }


def differing(settings: Sequence[Settings]) -> list[Settings]:
    """Return the settings of each run, without those that are equal in all runs."""
    names = dict.fromkeys(name for run in settings for name in run)
    varied = [name for name in names if len({repr(run.get(name)) for run in settings}) > 1]
    return [{name: run[name] for name in varied if name in run} for run in settings]


def differences(a: Manifest, b: Manifest) -> dict[str, TwoValues]:
    """Return the settings in which two runs differ: name → [A's value, B's value].

    If the prompts differ, `prompt` has the first pair of different texts. Of a classifier and
    another kind of model, only settings that both have are compared.
    """
    pairs = _pairs(run_settings(a), run_settings(b))
    if a.classifier != b.classifier:
        kinds = ["a classifier" if m.classifier else "scored on draws" for m in (a, b)]
        pairs = {"kind of model": kinds} | {k: v for k, v in pairs.items() if None not in v}
    pairs.pop("prompts", None)
    if a.identity.prompts != b.identity.prompts:
        prompts = zip(a.prompts, b.prompts, strict=False)
        first = next(([of_a[0], of_b[0]] for of_a, of_b in prompts if of_a != of_b), None)
        pairs = {"prompt": first or [f"{len(m.prompts)} prompts" for m in (a, b)], **pairs}
        if a.config.template != b.config.template:
            pairs["template"] = [a.config.template, b.config.template]
    return pairs


def differing_identity(a: Manifest, b: Manifest) -> dict[str, TwoValues]:
    """Return the parts of the identity that differ: dotted name → [A's value, B's value]."""
    return _pairs(*(dict(_flat(m.identity.plain())) for m in (a, b)))


def _pairs(*settings: Settings) -> dict[str, TwoValues]:
    a, b = differing(settings)
    return {name: [a.get(name), b.get(name)] for name in {**a, **b}}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with their dotted names."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def training_warning(a: Manifest, b: Manifest) -> str | None:
    """Return a warning if two backbones may have seen different training data, otherwise None."""
    groups = [
        training_group(m.backbone.trained_on, m.identity.backbone.weights or m.backbone.name)
        for m in (a, b)
    ]
    if groups[0] == groups[1]:
        return None
    origins = [provenance(m.backbone.trained_on) for m in (a, b)]
    return (
        f"Their backbones may have seen different training data: A is {origins[0]}, B is"
        f" {origins[1]}."
    )
