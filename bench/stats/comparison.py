"""Comparison of two stored runs: their difference, its test, and warnings about its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bench.contracts.measuring import Metric, MetricInput
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats
from bench.discovery.loading import load_plugins
from bench.errors import UserError, images_failed
from bench.inputs.subsets import random_order
from bench.stats.differences import differences, differing_identity, training_warning
from bench.stats.evidence import metric_input
from bench.stats.measures import image_parts, make_metric, measured_difference, metric_value
from bench.stats.paired import (
    ALPHA,
    ClassDifference,
    PairedTest,
    class_differences,
    paired_test,
    shared_rows,
)
from bench.stats.questions import Results, StopQuestion, answer
from bench.stats.sequential import anytime_interval, two_sided_p
from bench.stats.shares import accuracy_interval
from bench.store.arrow import indices
from bench.store.decisions import Decisions
from bench.store.documents import Manifest, changed_code
from bench.store.fields import Document
from bench.store.questions import QuestionAnswer
from bench.store.runs import read_run

MACHINE = ("platform", "cpus")  # of a manifest's environment


class MetricDifference(Document):
    """A metric other than accuracy, of two runs on the same images."""

    metric: str  # name of the metric
    a: float  # value of A
    b: float  # value of B
    difference: float  # B less A
    difference_ci95: tuple[float, float]
    p: float  # two-sided p of the paired test
    test: str = "permutation"  # name of the test


class Comparison(PairedTest):
    """Run B against run A, the baseline, on the samples that both decided."""

    run_a: str  # id of A
    run_b: str  # id of B
    tested: MetricDifference | None = None  # the tested metric, if it is not accuracy
    significant: bool  # whether p < 0.05, of the tested metric
    regression: bool  # whether B is significantly worse
    agreement: float  # share of equal predictions
    agreement_ci95: tuple[float, float]
    per_class: list[ClassDifference]  # comparison of each class with samples
    cost_ratio: float | None  # evaluation equivalents, B over A; None: see `not_divided`
    seconds_ratio: float | None  # scoring time, B over A; None: see `not_divided`
    not_divided: dict[str, str]  # reason why a ratio of known numbers is None, by its name
    settings: dict[str, list[Any]]  # parts of the identity that differ, name → [A's, B's]
    differences: dict[str, list[Any]]  # the same by the names of options
    warnings: list[str]  # limits of the comparison
    sequential: QuestionAnswer | None = None  # what the images answer in random order, if asked for
    anytime_p: float | None = None  # two-sided p that holds at every number of images
    anytime_ci95: tuple[float, float] | None = None  # of the difference, at every number of images


def compare(
    path_a: Path,
    path_b: Path,
    metric: str = "accuracy",
    sequential: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Comparison:
    """Compare run B with run A, the baseline, on the samples that both decided.

    `metric` is tested, with its `parameters`; accuracies are always compared. With `sequential`,
    the accuracies, or another metric that is a mean over images, are also compared image by image
    in random order, by a test that holds at every number of images. UserError: dataset, version,
    split or classes differ, a sample's label does, the runs share no sample, or one lacks what the
    metric needs. Anything less is a warning in the result.
    """
    a, b = read_run(path_a), read_run(path_b)
    spec = load_plugins().metrics.get(metric)
    made, top = make_metric(spec, parameters), "top5" in spec.needs
    decided = a.decided(top), b.decided(top)
    compared, rows = compare_decided((a.manifest, b.manifest), decided), shared_rows(*decided)
    of_a, of_b = (
        metric_input(run.path, run.manifest, own, spec, made).take(side)
        for run, own, side in zip((a, b), decided, rows, strict=True)
    )
    update = {} if metric == "accuracy" else _tested(spec, made, of_a, of_b)
    if sequential:
        (base, kind), (new, _) = (image_parts(spec, made, data) for data in (of_a, of_b))
        if kind != "images" or base is None or new is None or spec.range != (0.0, 1.0):
            raise UserError(f"--sequential is for means over images, and {spec.words} is none.")
        ids = decided[0].sample_ids.take(indices(rows[0])).to_pylist()
        row_of = {sample_id: row for row, sample_id in enumerate(ids)}
        fingerprint = a.manifest.identity.dataset.fingerprint
        order = [row_of[sample_id] for sample_id in random_order(ids, fingerprint)]
        update |= _in_order(new[order], base[order], a.manifest)
    return compared.model_copy(update=update)


def _tested(spec: MetricSpec, metric: Metric, a: MetricInput, b: MetricInput) -> dict[str, Any]:
    """Return the test of a metric on the images of both runs, and what it says of run B."""
    test = measured_difference(spec, metric, a, b)
    values = [metric_value(spec, metric, data) for data in (a, b)]
    change, significant = values[1] - values[0], test.p < ALPHA
    return {
        "tested": MetricDifference(
            metric=spec.name,
            a=values[0],
            b=values[1],
            difference=change,
            difference_ci95=test.interval,
            p=test.p,
            test=test.test,
        ),
        "significant": significant,
        "regression": significant and spec.sign * change < 0,
    }


def _in_order(new: Floats, base: Floats, manifest: Manifest) -> dict[str, Any]:
    """Return the comparison that holds at every number of images, taken in random order.

    `new` and `base` are the images' values of B and of A, in this order; `manifest` is that of A.
    """
    name = manifest.run_id
    question = StopQuestion("differs", f"differs from {name}", name)
    results = Results(new, base, manifest.dataset.n_total)
    return {
        "sequential": answer(question, results),
        "anytime_p": two_sided_p(results.differences),
        "anytime_ci95": anytime_interval(results.differences),
    }


def compare_decided(
    manifests: tuple[Manifest, Manifest], decided: tuple[Decisions, Decisions]
) -> Comparison:
    """Compare accuracies of run B and run A, the baseline, from their decisions; see `compare`."""
    check_comparable(*manifests)
    a, b = decided
    rows_a, rows_b = shared_rows(a, b)
    names = [m.run_id for m in manifests]
    if not len(rows_a):
        raise UserError(f"{names[0]} and {names[1]} share no decided sample.")
    labels = a.labels[rows_a]
    if (labels != b.labels[rows_b]).any():
        raise UserError(f"{names[0]} and {names[1]} give the same samples different labels.")
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    n, same = len(labels), int((a.predictions[rows_a] == b.predictions[rows_b]).sum())
    outcome = paired_test(right_a, right_b)
    significant = outcome.mcnemar_p < ALPHA
    reasons = _not_divided(*manifests)
    costs = None if "cost" in reasons else _ratio(a.equivalents[rows_a], b.equivalents[rows_b])
    seconds = None if "seconds" in reasons else _ratio(a.seconds[rows_a], b.seconds[rows_b])
    return Comparison(
        run_a=names[0],
        run_b=names[1],
        **outcome.plain(),
        significant=significant,
        regression=significant and outcome.difference < 0,
        agreement=same / n,
        agreement_ci95=accuracy_interval(same, n),
        per_class=class_differences(labels, right_a, right_b, manifests[0].classes),
        cost_ratio=costs,
        seconds_ratio=seconds,
        not_divided=reasons,
        settings=differing_identity(*manifests),
        differences=differences(*manifests),
        warnings=_warnings(manifests, (a, b), n),
    )


def check_comparable(a: Manifest, b: Manifest) -> None:
    """Raise a UserError if dataset, version, split or classes of two runs differ; it says which."""
    names = {"name": "dataset", "version": "version of the dataset", "split": "split"}
    for field, name in names.items():
        of_a, of_b = getattr(a.dataset, field), getattr(b.dataset, field)
        if of_a != of_b:
            raise UserError(
                f"These runs do not compare, the {name} differs: {a.run_id} has"
                f" {of_a!r}, {b.run_id} has {of_b!r}."
            )
    if a.classes != b.classes:
        odd = sorted(set(a.classes) ^ set(b.classes))
        what = f"only one has {odd[0]!r}" if odd else "their order differs"
        raise UserError(
            f"These runs do not compare, the classes of {a.run_id} and {b.run_id} differ: {what}."
        )


def _not_divided(a: Manifest, b: Manifest) -> dict[str, str]:
    why = {}
    if a.classifier or b.classifier:
        kinds = ["passes of a classifier" if m.classifier else "evaluations" for m in (a, b)]
        why["cost"] = f"one of {kinds[0]}, one of {kinds[1]}: not divided"
        if kinds[0] == kinds[1]:
            why["cost"] = "one pass per image each"
    if a.replayed_from or b.replayed_from:
        why["seconds"] = "a replay runs no model"
    elif a.created[:10] != b.created[:10]:
        why["seconds"] = "measured on different days: not divided"
    elif any(a.environment.get(n) != b.environment.get(n) for n in MACHINE):
        why["seconds"] = "measured on different machines: not divided"
    return why


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    return float(b.sum() / a.sum()) if a.sum() > 0 and b.sum() > 0 else None


def _warnings(manifests: Sequence[Manifest], decided: Sequence[Decisions], n: int) -> list[str]:
    warnings = []
    prints = [m.identity.dataset.fingerprint for m in manifests]
    if prints[0] != prints[1]:
        warnings.append(
            f"The data differs (fingerprint {prints[0][:8]} in A, {prints[1][:8]} in B): samples"
            " are paired by id, but images were added, left out, changed or encoded anew."
        )
    for manifest, own in zip(manifests, decided, strict=True):
        name, requested = manifest.run_id, len(manifest.samples)
        if len(own) < requested:
            warnings.append(
                f"{name} is not complete: {len(own)} of {requested} images are decided."
            )
        if len(own) > n:
            warnings.append(
                f"{len(own) - n} of {name}'s {len(own)} images are left out: only it has them."
            )
        if failed := int(own.failed.sum()):
            warnings.append(f"{images_failed(failed)} in {name}, counted as wrong.")
    total = manifests[0].dataset.n_total
    if n < total:
        warnings.append(f"This is a subset: {n} of the split's {total} images.")
    if training := training_warning(*manifests):
        warnings.append(training)
    a, b = (manifest.identity for manifest in manifests)
    if a.prompts != b.prompts and not (a.learned_from or b.learned_from):  # those read no prompts
        warnings.append("They ask with different prompts.")
    if changed := changed_code(manifests):
        warnings.append(f"The code of {' and '.join(changed)} changed between the runs.")
    return warnings
