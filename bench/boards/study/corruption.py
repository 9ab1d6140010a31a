"""The errors of a study's methods on corrupted images, by corruption and by severity.

As Hendrycks & Dietterich (ICLR 2019): a corruption's error is the mean over its severities, and the
mean corruption error that over corruptions. Theirs divides each corruption's error by AlexNet's,
which is known for ImageNet alone; here nothing is divided. The error in any other metric of which
more is better is what it lacks to the largest value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.boards.study.methods import MethodRuns, of_most_images, read_methods
from bench.boards.study.rows import StudyRun
from bench.contracts.measuring import Metric
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats
from bench.stats.crossed import spread
from bench.store.fields import Document, Number, Positive
from bench.store.studies import Study

AXIS = "corrupt"  # its values are NAME:SEVERITY, or `none`
CLEAN = "none"


class CorruptionErrors(Document):
    """The errors of one method on corrupted images of one dataset: of the accuracy, its shares."""

    board: str  # the dataset and its split
    method: str  # values on all axes but those of the data, and those that are taken together
    images: Positive  # number of images, the same under every corruption
    clean: Number | None = None  # error on the images as they are; None: not in the study
    severities: dict[str, Number]  # severity → mean error over the corruptions
    corruptions: dict[str, Number]  # corruption → mean error over its severities
    error: Number  # mean corruption error: the mean over corruptions
    interval: tuple[Number, Number]  # 95 % interval of it over other images


def is_clean(run: StudyRun) -> bool:
    """Tell whether a run is on images as they are."""
    return run.row.axes.get(AXIS, CLEAN) == CLEAN


def corruption_errors(
    runs: Sequence[StudyRun],
    study: Study,
    over: Sequence[str],
    spec: MetricSpec,
    metric: Metric,
) -> list[CorruptionErrors]:
    """Return the errors of each method that has complete runs of every corruption of the study.

    None, in a metric of which more is not better.
    """
    if spec.sign < 1:
        return []
    names = list(dict.fromkeys(run.row.axes.get(AXIS, CLEAN) for run in runs))
    methods: dict[tuple[str, str], dict[str, MethodRuns]] = {}
    for name in names:
        those = [run for run in runs if run.row.axes.get(AXIS, CLEAN) == name]
        for board, members in read_methods(those, study, over, spec, metric).items():
            for method in members:
                methods.setdefault((board, method.name), {})[name] = method
    return [
        _errors(board, method, dict(zip(names, same, strict=True)), spec.range)
        for (board, method), by_name in methods.items()
        if len(by_name) == len(names)
        and len(same := of_most_images([by_name[name] for name in names])) == len(names)
    ]


def _errors(
    board: str, method: str, runs: dict[str, MethodRuns], within: tuple[float, float]
) -> CorruptionErrors:
    largest = within[1] - within[0]
    wrong: dict[str, Floats] = {
        name: within[1] - run.measured.mean(axis=(0, 1)) for name, run in runs.items()
    }
    clean = wrong.pop(CLEAN, None)
    corruptions: dict[str, list[Floats]] = {}
    severities: dict[str, list[float]] = {}
    for name, values in wrong.items():
        kind, _, severity = name.partition(":")
        corruptions.setdefault(kind, []).append(values)
        severities.setdefault(severity, []).append(float(values.mean()))
    by_image = np.mean([np.mean(values, axis=0) for values in corruptions.values()], axis=0)
    mean = spread(by_image[None, None], within=(0.0, largest))
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
