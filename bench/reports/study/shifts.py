"""Changes of a study's methods under shifts: to another dataset, or to corrupted images.

After Hendrycks & Dietterich (ICLR 2019): the error under a corruption is the mean over its
severities, and the mean corruption error is the mean over the corruptions. They divide by the error
of AlexNet, which is known for ImageNet only; here errors are not divided. The error in a metric is
the largest value of the metric minus its value, so it is defined only if larger is better.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from bench.contracts.metric import Metric
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.inputs.parsing import check_column, read_csv_file
from bench.machine.libraries import special
from bench.reports.study.methods import (
    MethodRuns,
    StudyRow,
    image_clusters,
    read_methods,
    select_most_images,
)
from bench.stats.inference.difference_tests import compare_over_images, limited, metric_spread
from bench.stats.inference.paired import Difference, tested_difference
from bench.stats.inference.shares import Estimate
from bench.store.formats.fields import Document, Number, Positive, Share
from bench.store.studies import Study

MIN_MODELS = 10  # smallest number of reference models through which a line is fitted
EDGE = 1e-3  # accuracies are clipped to [EDGE, 1 - EDGE], because 0 and 1 have no logit


Estimates = dict[tuple[str, str | None], Estimate]  # see `dataset_changes`


class Robustness(Document):
    """Effective robustness, by a line through reference models (Taori et al., NeurIPS 2020)."""

    expected: Share  # accuracy after the shift that the line predicts
    effective: Difference  # accuracy after the shift minus the expected one, for this line


class Change(Document):
    """Change of a method's metric under a shift, or the difference of two methods' changes."""

    method: str  # name of the method in tables
    less: str | None = None  # name of the method whose values are subtracted; None for no other
    usual: str  # dataset before the shift
    shifted: str  # dataset after the shift; `corrupted` for the mean over the corruptions
    before: Number  # value before the shift
    after: Number  # value after the shift
    change: Difference
    """Value after the shift minus that before it, not corrected for multiple comparisons. Corrupted
    images are paired with the clean ones; the images of two datasets are independent."""
    robustness: Robustness | None = None  # None without reference models


def dataset_changes(
    boards: Mapping[str, Estimates],
    shifts: Sequence[tuple[str, str]],
    reference: Path | None = None,
) -> Iterator[Change]:
    """Yield the changes between the two datasets of each shift.

    `boards` has, by dataset and split, the value of each method, (method, None), and the difference
    of each pair, (method, other). `reference` is a file as for `reference_line`.
    """
    for usual, shifted in shifts:
        line = None if reference is None else reference_line(reference, usual, shifted)
        before, after = _on_dataset(boards, usual), _on_dataset(boards, shifted)
        # Before the shift, the difference of a pair may be the other way round.
        before |= {(b, a): -value for (a, b), value in before.items() if b is not None}
        for (method, less), later in after.items():
            if (earlier := before.get((method, less))) is None:
                continue
            robustness = None
            if line is not None and less is None:
                expected = line(earlier)
                robustness = Robustness(
                    expected=expected.value, effective=_independent(later - expected)
                )
            yield Change(
                method=method,
                less=less,
                usual=usual,
                shifted=shifted,
                before=earlier.value,
                after=later.value,
                change=_independent(later - earlier),
                robustness=robustness,
            )


def _on_dataset(boards: Mapping[str, Estimates], name: str) -> Estimates:
    """Return the estimates on a dataset, named with or without its split."""
    matching = [of for board, of in boards.items() if name in (board, board.split("/")[0])]
    return {key: value for estimates in matching for key, value in estimates.items()}


def _independent(change: Estimate) -> Difference:
    return tested_difference("independent", None, change.value, change.interval, None)


def reference_line(file: Path, usual: str, shifted: str) -> Callable[[Estimate], Estimate]:
    """Return a function that predicts the accuracy after a shift from that before it.

    It is a line through the logits of the accuracies of at least ten other models. `file` is a CSV
    file with one line per model and one column of accuracies, from 0 to 1, per dataset. A model
    without one of the two accuracies is skipped. Raises UserError if the file lacks a column, or
    has invalid accuracies, too few models or only models of equal accuracy.
    """
    columns, lines = read_csv_file(file)
    for name in (usual, shifted):
        check_column(name, columns, str(file))
    models = []
    for number, fields in lines:
        texts = [fields[name].strip() for name in (usual, shifted)]
        if not all(texts):
            continue
        try:
            pair = [float(text) for text in texts]
        except ValueError:
            pair = []
        if not pair or not all(0 <= share <= 1 for share in pair):
            where = f"{file}:{number}"
            raise UserError(f"{where}: accuracies must be numbers from 0 to 1, got {texts}.")
        models.append(pair)
    if len(models) < MIN_MODELS or len({before for before, _ in models}) == 1:
        raise UserError(
            f"{file}: effective robustness needs at least {MIN_MODELS} models with accuracies on"
            f" {usual}, which differ, and on {shifted}; got {len(models)}."
        )
    before, after = _logits(models).T
    slope, offset = np.polyfit(before, after, 1)

    def expected(before_shift: Estimate) -> Estimate:
        shares = [before_shift.value, *before_shift.interval]
        value, *ends = special.expit(slope * _logits(shares) + offset).tolist()
        return Estimate(value, (min(ends), max(ends)))

    return expected


def _logits(shares: Sequence[object]) -> Floats:
    values = np.asarray(shares, dtype=np.float64)
    return np.asarray(special.logit(np.clip(values, EDGE, 1 - EDGE)))


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
    interval: tuple[Number, Number] | None  # 95 % interval of `error`; None as for a `Spread`


def is_clean(row: StudyRow) -> bool:
    """Return whether a run is on uncorrupted images."""
    return row.axes.get(AXIS, CLEAN) == CLEAN


def read_corrupted(
    rows: Sequence[StudyRow], study: Study, over: Sequence[str], spec: MetricSpec, metric: Metric
) -> CorruptedRuns:
    """Return the methods that have runs on the same images for every corruption.

    There are none if nothing is corrupted, or larger values of the metric are not better.
    """
    names = list(dict.fromkeys(row.axes.get(AXIS, CLEAN) for row in rows))
    if spec.sign < 1 or set(names) <= {CLEAN}:
        return {}
    methods: dict[tuple[str, str], dict[str, MethodRuns]] = {}
    for name in names:
        of_corruption = [row for row in rows if row.axes.get(AXIS, CLEAN) == name]
        for board, members in read_methods(of_corruption, study, over, spec, metric).items():
            for method in members:
                methods.setdefault((board, method.name), {})[name] = method
    complete: dict[tuple[str, str], dict[str, MethodRuns]] = {}
    for key, by_name in methods.items():
        same = select_most_images([by_name[name] for name in names if name in by_name])
        if len(same) == len(names):  # all corruptions, on the same images
            complete[key] = dict(zip(names, same, strict=True))
    return complete


def corruption_changes(
    methods: CorruptedRuns, whole_groups: bool, spec: MetricSpec
) -> Iterator[Change]:
    """Yield the changes from clean to corrupted images, and the differences between methods.

    Every image is compared with itself, for these seeds. Methods with fewer images than the others
    are left out. `whole_groups`: whether the images of a group are resampled together.
    """
    boards: dict[str, list[MethodRuns]] = {}
    for (board, _), runs in methods.items():
        if CLEAN in runs:
            corrupted = np.mean(list(_by_corruption(runs).values()), axis=0)
            clean = runs[CLEAN].values.mean(axis=(0, 1))
            both = np.stack([clean, corrupted])[:, None]  # [2, 1, images]
            boards.setdefault(board, []).append(replace(runs[CLEAN], values=both))
    for board, members in boards.items():
        same = select_most_images(members)
        clusters = image_clusters(same, whole_groups)
        alone = [(method.name, None, method.values) for method in same]
        pairs = ((b.name, a.name, b.values - a.values) for a, b in combinations(same, 2))
        for method, less, (clean, corrupted) in chain(alone, pairs):
            # A change is at most the metric's range, and that of a difference twice as much.
            most = float(np.ptp(spec.range)) * (1 if less is None else 2)
            reach = most if spec.mean_over_images else None
            change = compare_over_images(clean[None], corrupted[None], None, clusters, reach)
            yield Change(
                method=method,
                less=less,
                usual=board,
                shifted="corrupted",
                before=float(clean.mean()),
                after=float(corrupted.mean()),
                change=limited(change, most),
            )


def corruption_errors(methods: CorruptedRuns, spec: MetricSpec) -> list[CorruptionErrors]:
    """Return the errors of each method."""
    return [_errors(board, method, runs, spec) for (board, method), runs in methods.items()]


def _errors(
    board: str, method: str, runs: Mapping[str, MethodRuns], spec: MetricSpec
) -> CorruptionErrors:
    high, values = spec.range[1], _by_corruption(runs)
    first = next(iter(runs.values()))
    severities: dict[str, list[float]] = {}
    for name in runs.keys() - {CLEAN}:
        error = high - float(runs[name].values.mean())
        severities.setdefault(name.partition(":")[2], []).append(error)
    by_image = np.mean(list(values.values()), axis=0)
    mean = metric_spread(spec, replace(first, values=by_image[None, None]), first.decided.labels)
    return CorruptionErrors(
        board=board,
        method=method,
        images=len(by_image),
        clean=high - float(runs[CLEAN].values.mean()) if CLEAN in runs else None,
        severities={name: float(np.mean(severities[name])) for name in sorted(severities)},
        corruptions={name: high - float(of_name.mean()) for name, of_name in values.items()},
        error=high - mean.value,
        interval=mean.interval and (high - mean.interval[1], high - mean.interval[0]),
    )


def _by_corruption(runs: Mapping[str, MethodRuns]) -> dict[str, Floats]:
    """Return each image's mean value over runs and severities, float64 [n], by corruption."""
    values: dict[str, list[Floats]] = {}
    for name, of_name in runs.items():
        if name != CLEAN:
            values.setdefault(name.partition(":")[0], []).append(of_name.values.mean(axis=(0, 1)))
    return {name: np.mean(of_name, axis=0) for name, of_name in values.items()}
