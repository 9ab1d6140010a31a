"""Errors of a study's methods on corrupted images, by corruption and by severity.

After Hendrycks & Dietterich (ICLR 2019): the error under a corruption is the mean over its
severities, and the mean corruption error is the mean over the corruptions. They divide by the error
of AlexNet, which is known for ImageNet only; here errors are not divided. The error in a metric is
the largest value of the metric minus its value, so it is defined only if larger is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.boards.study.methods import MethodRuns, read_methods, select_most_images
from bench.boards.study.rows import StudyRun
from bench.contracts.measuring import Metric
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats
from bench.stats.crossed import spread
from bench.store.fields import Document, Number, Positive
from bench.store.studies import Study

AXIS = "corrupt"  # axis whose values are `NAME:SEVERITY`, or `none`
CLEAN = "none"


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


def corruption_errors(
    runs: Sequence[StudyRun],
    study: Study,
    over: Sequence[str],
    spec: MetricSpec,
    metric: Metric,
) -> list[CorruptionErrors]:
    """Return the errors of each method that has runs on the same images for every corruption.

    The list is empty if larger values of the metric are not better.
    """
    if spec.sign < 1:
        return []
    names = list(dict.fromkeys(run.row.axes.get(AXIS, CLEAN) for run in runs))
    methods: dict[tuple[str, str], dict[str, MethodRuns]] = {}
    for name in names:
        of_corruption = [run for run in runs if run.row.axes.get(AXIS, CLEAN) == name]
        for board, members in read_methods(of_corruption, study, over, spec, metric).items():
            for method in members:
                methods.setdefault((board, method.name), {})[name] = method
    return [
        _errors(board, method, dict(zip(names, same, strict=True)), spec.range)
        for (board, method), by_name in methods.items()
        if len(by_name) == len(names)
        and len(same := select_most_images([by_name[name] for name in names])) == len(names)
    ]


def _errors(
    board: str, method: str, runs: dict[str, MethodRuns], metric_range: tuple[float, float]
) -> CorruptionErrors:
    low, high = metric_range
    errors: dict[str, Floats] = {  # float64 [images], the means over the runs
        name: high - run.measured.mean(axis=(0, 1)) for name, run in runs.items()
    }
    clean = errors.pop(CLEAN, None)
    corruptions: dict[str, list[Floats]] = {}
    severities: dict[str, list[float]] = {}
    for name, values in errors.items():
        corruption, _, severity = name.partition(":")
        corruptions.setdefault(corruption, []).append(values)
        severities.setdefault(severity, []).append(float(values.mean()))
    by_image = np.mean([np.mean(values, axis=0) for values in corruptions.values()], axis=0)
    mean = spread(by_image[None, None], within=(0.0, high - low))
    return CorruptionErrors(
        board=board,
        method=method,
        images=len(by_image),
        clean=None if clean is None else float(clean.mean()),
        severities={name: float(np.mean(severities[name])) for name in sorted(severities)},
        corruptions={name: float(np.mean(values)) for name, values in corruptions.items()},
        error=mean.accuracy,
        interval=mean.interval,
    )
