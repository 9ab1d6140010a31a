"""Changes of a study's methods under shifts: to corrupted images, or to another dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.contracts.strategy import Floats
from bench.errors import UserError
from bench.inputs.parsing import check_column, read_csv_file
from bench.stats.paired import Difference, tested_difference
from bench.stats.shares import Estimate
from bench.store.fields import Document, Number, Share

MIN_MODELS = 10  # smallest number of reference models through which a line is fitted
EDGE = 1e-3  # accuracies are clipped to [EDGE, 1 - EDGE], because 0 and 1 have no logit


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
    boards: Mapping[str, Mapping[tuple[str, str | None], Estimate]],
    shifts: Sequence[tuple[str, str]],
    reference: Path | None = None,
) -> Iterator[Change]:
    """Yield the changes between the two datasets of each shift, named with or without their split.

    `boards` has, by dataset and split, the value of each method, (method, None), and the difference
    of each pair, (method, other). `reference` is a file as for `reference_line`.
    """
    for usual, shifted in shifts:
        line = None if reference is None else reference_line(reference, usual, shifted)
        before, after = (
            {
                key: value
                for board, values in boards.items()
                if name in (board, board.split("/")[0])
                for key, value in values.items()
            }
            for name in (usual, shifted)
        )
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
        from scipy.special import expit

        shares = [before_shift.value, *before_shift.interval]
        value, *ends = expit(slope * _logits(shares) + offset).tolist()
        return Estimate(value, (min(ends), max(ends)))

    return expected


def _logits(shares: Sequence[object]) -> Floats:
    from scipy.special import logit

    values = np.asarray(shares, dtype=np.float64)
    return np.asarray(logit(np.clip(values, EDGE, 1 - EDGE)))
