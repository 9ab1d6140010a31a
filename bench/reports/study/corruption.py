"""Errors of a study's methods on corrupted images, by corruption and by severity.

After Hendrycks & Dietterich (ICLR 2019): the error under a corruption is the mean over its
severities, and the mean corruption error is the mean over the corruptions. They divide by the error
of AlexNet, which is known for ImageNet only; here errors are not divided. The error in a metric is
the largest value of the metric minus its value, so it is defined only if larger is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from bench.contracts.measuring import Metric
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats
from bench.reports.study.methods import MethodRuns, image_clusters, read_methods, select_most_images
from bench.reports.study.rows import StudyRun
from bench.reports.study.shifts import Change
from bench.stats.crossed import spread
from bench.stats.difference_tests import compare_over_images
from bench.store.fields import Document, Number, Positive
from bench.store.studies import Study

AXIS = "corrupt"  # axis whose values are `NAME:SEVERITY`, or `none`
CLEAN = "none"
CorruptedRuns = Mapping[tuple[str, str], Mapping[str, MethodRuns]]
"""Dataset and method → corruption with severity, or `none` → its runs, on the same images."""


class CorruptionErrors(Document):
    """Errors of one method on corrupted images of one dataset; those of the accuracy are shares."""

    board: str  # dataset and split
    method: str  # name of the method in tables
    images: Positive  # number of images, which are the same under every corruption
    clean: Number | None = None  # error on uncorrupted images; None: not in the study
    severities: dict[str, Number]  # severity → mean error over the corruptions
    corruptions: dict[str, Number]  # corruption → mean error over its severities
    error: Number  # mean corruption error, the mean over corruptions
    interval: tuple[Number, Number]  # 95 % interval of `error` over other images


def is_clean(run: StudyRun) -> bool:
    """Return whether a run is on uncorrupted images."""
    return run.row.axes.get(AXIS, CLEAN) == CLEAN


def read_corrupted(
    runs: Sequence[StudyRun], study: Study, over: Sequence[str], spec: MetricSpec, metric: Metric
) -> CorruptedRuns:
    """Return the methods that have runs on the same images for every corruption.

    There are none if nothing is corrupted, or larger values of the metric are not better.
    """
    names = list(dict.fromkeys(run.row.axes.get(AXIS, CLEAN) for run in runs))
    if spec.sign < 1 or set(names) <= {CLEAN}:
        return {}
    methods: dict[tuple[str, str], dict[str, MethodRuns]] = {}
    for name in names:
        of_corruption = [run for run in runs if run.row.axes.get(AXIS, CLEAN) == name]
        for board, members in read_methods(of_corruption, study, over, spec, metric).items():
            for method in members:
                methods.setdefault((board, method.name), {})[name] = method
    return {
        key: dict(zip(names, same, strict=True))
        for key, by_name in methods.items()
        if len(by_name) == len(names)
        and len(same := select_most_images([by_name[name] for name in names])) == len(names)
    }


def corruption_changes(methods: CorruptedRuns, whole_groups: bool) -> Iterator[Change]:
    """Yield the changes from clean to corrupted images, and the differences between methods.

    Every image is compared with itself, for these seeds. Methods with fewer images than the others
    are left out. `whole_groups`: whether the images of a group are resampled together.
    """
    boards: dict[str, list[MethodRuns]] = {}
    for (board, _), runs in methods.items():
        if CLEAN in runs:
            corrupted = np.mean(list(_by_corruption(runs).values()), axis=0)
            both = np.stack([_by_image(runs[CLEAN]), corrupted])[:, None]  # [2, 1, images]
            boards.setdefault(board, []).append(replace(runs[CLEAN], measured=both))
    for board, members in boards.items():
        same = select_most_images(members)
        clusters = image_clusters(same) if whole_groups else None
        alone = [(method.name, None, method.measured) for method in same]
        pairs = [(b.name, a.name, b.measured - a.measured) for a, b in combinations(same, 2)]
        for method, less, (clean, corrupted) in (*alone, *pairs):
            yield Change(
                method=method,
                less=less,
                usual=board,
                shifted="corrupted",
                before=float(clean.mean()),
                after=float(corrupted.mean()),
                change=compare_over_images(clean[None], corrupted[None], None, clusters),
            )


def corruption_errors(methods: CorruptedRuns, spec: MetricSpec) -> list[CorruptionErrors]:
    """Return the errors of each method."""
    return [_errors(board, method, runs, spec.range) for (board, method), runs in methods.items()]


def _errors(
    board: str, method: str, runs: Mapping[str, MethodRuns], metric_range: tuple[float, float]
) -> CorruptionErrors:
    low, high = metric_range
    corruptions = {name: high - values for name, values in _by_corruption(runs).items()}
    severities: dict[str, list[float]] = {}
    for name in runs.keys() - {CLEAN}:
        error = high - float(runs[name].measured.mean())
        severities.setdefault(name.partition(":")[2], []).append(error)
    by_image = np.mean(list(corruptions.values()), axis=0)
    mean = spread(by_image[None, None], within=(0.0, high - low))
    return CorruptionErrors(
        board=board,
        method=method,
        images=len(by_image),
        clean=high - float(runs[CLEAN].measured.mean()) if CLEAN in runs else None,
        severities={name: float(np.mean(severities[name])) for name in sorted(severities)},
        corruptions={name: float(values.mean()) for name, values in corruptions.items()},
        error=mean.value,
        interval=mean.interval,
    )


def _by_corruption(runs: Mapping[str, MethodRuns]) -> dict[str, Floats]:
    """Return each image's mean value over runs and severities, float64 [n], by corruption."""
    values: dict[str, list[Floats]] = {}
    for name, of_name in runs.items():
        if name != CLEAN:
            values.setdefault(name.partition(":")[0], []).append(_by_image(of_name))
    return {name: np.mean(of_name, axis=0) for name, of_name in values.items()}


def _by_image(runs: MethodRuns) -> Floats:
    """Return each image's mean value over the runs of a method, float64 [n]."""
    return np.asarray(runs.measured.mean(axis=(0, 1)))
