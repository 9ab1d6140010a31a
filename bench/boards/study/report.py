"""What a study says: its methods on each dataset, what moves them, and which of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from bench.boards.study.groups import StudyGroup, compare_groups
from bench.boards.study.methods import (
    DATA,
    OVER,
    MethodRuns,
    clusters_of,
    of_most_images,
    of_same_seeds,
    read_methods,
    worst_group_of,
)
from bench.boards.study.rows import StudyRow, study_runs
from bench.errors import UserError
from bench.stats.across_datasets import MeanRanks, Robustness, mean_ranks, robustness
from bench.stats.crossed import Over, Spread, spread
from bench.stats.many import Difference, compare_all, corrected, ranks
from bench.store.fields import Count, Document, FullDocument, Positive
from bench.store.looks import count_looks, is_test
from bench.store.studies import Study, read_study, results_of
from bench.store.summary import Group


class StudyMethod(Document):
    """One method on one dataset: what a study's table has in a line."""

    board: str
    """The dataset and its split."""
    method: str
    """Its place on all axes but those of the data, and those it is taken over."""
    axes: dict[str, str]
    """The same by axis."""
    trained_on: str | None
    """`dataset/split`; None: zero-shot."""
    runs: Positive
    """That are complete."""
    declared: Positive
    """Runs that the study has of it."""
    spread: Spread
    """Of its accuracy."""
    tested: Spread | None = None
    """Of the metric that differences are tested in, where that is another one."""
    balanced_accuracy: float
    """The mean over its runs."""
    cost: float
    """Evaluation equivalents per image, the mean over its runs."""
    seconds_per_image: float | None
    """Of scoring."""
    worst_group: Group | None = None
    """Of a dataset with groups, the one with the lowest accuracy."""
    rank: Positive | None = None
    """One more than the methods that are significantly better; None: it was compared with none."""
    looks: Count | None = None
    """Finished runs on this split in the results folder; None: it is no test split."""

    @property
    def shown(self) -> Spread:
        """What tables and figures show: of the metric that differences are tested in."""
        return self.tested or self.spread


class BoardDifferences(Document):
    """The differences of the methods on one dataset, or of groups of them."""

    board: str
    """The dataset and its split."""
    metric: str
    """What is compared."""
    differences: list[Difference]
    """Of every two methods."""


class StudyReport(FullDocument):
    """A study's table and statistics, as `bench study FILE --show --json` prints them."""

    name: str
    """Of the study."""
    file: str
    """That declares it."""
    updated: str
    """When, in ISO 8601."""
    axes: list[str]
    """Their names."""
    over: list[str]
    """The axes whose runs are taken together."""
    metric: str = "accuracy"
    """What differences are tested in."""
    tests_over: Over = "images"
    """What tests and intervals are over; `seeds`: over other images and other seeds."""
    cells: Count
    """Runs that are declared."""
    done: Count
    """Of these, complete ones."""
    failed: Count
    """Runs that failed, or have images that did."""
    rows: list[StudyRow]
    """The runs."""
    methods: list[StudyMethod]
    """Runs that differ in seed or template alone, taken together."""
    differences: list[BoardDifferences]
    """Of the methods, on each dataset."""
    groups: list[StudyGroup] = Field(default_factory=list)
    """Methods taken together by the group of their backbone."""
    group_differences: list[BoardDifferences] = Field(default_factory=list)
    """Corrected for all differences of groups."""
    ranks: MeanRanks | None = None
    """Over ten datasets and more."""
    robustness: list[Robustness] = Field(default_factory=list)
    """Of each method under each shift."""
    looks: dict[str, Count] = Field(default_factory=dict)
    """Dataset and test split → finished runs on it, in the results folder."""
    notes: list[str] = Field(default_factory=list)
    """What a reader must know, in plain words."""


def study_report(
    folder: Path,
    over: Sequence[str] = OVER,
    metric: str = "accuracy",
    margin: float | None = None,
    known: Study | None = None,
) -> StudyReport:
    """Return what a study says by now.

    Args:
        folder: the study's folder.
        over: axes whose runs are taken together, some of `seed` and `template`.
        metric: what differences are tested in.
        margin: differences below it count as nothing; None: what the study's file says.
        known: its state, where it was read already.

    Raises:
        UserError: there is no such study, or no such axis to take together.
    """
    study = known or read_study(folder)
    for name in over:
        if name not in OVER:
            raise UserError(f"--over {name}: runs are taken together over {' and '.join(OVER)}.")
    if study.over == "seeds" and "seed" not in over:
        raise UserError('The study tests over seeds (over = "seeds"); --over has to name seed.')
    margin = study.margin if margin is None else margin
    runs = list(study_runs(folder, study))
    boards = read_methods(runs, study, over)
    methods: list[StudyMethod] = []
    groups: list[StudyGroup] = []
    found: list[BoardDifferences] = []
    of_groups: list[BoardDifferences] = []
    compared: dict[str, list[str]] = {}  # board → the methods with a difference from each other
    looks = {
        f"{name}/{split}": count
        for (name, split, data), count in count_looks([results_of(folder)]).items()
        if any((r.row.dataset, r.row.split, r.row.fingerprint) == (name, split, data) for r in runs)
    }
    for board, members in boards.items():
        whole = of_most_images(members)
        clusters = clusters_of(whole) if study.whole_groups else None
        same = of_same_seeds(whole) if study.over == "seeds" else whole
        compared[board] = [one.name for one in same]
        answers, labels = [one.answers for one in same], whole[0].labels
        differences = compare_all(answers, labels, metric, margin, clusters, study.over)
        found.append(BoardDifferences(board=board, metric=metric, differences=differences))
        methods += [_method(board, one, study, metric, looks.get(board)) for one in members]
        pooled, differences = compare_groups(
            board, whole, study.backbone_groups, metric, margin, study.whole_groups
        )
        groups += pooled
        of_groups.append(BoardDifferences(board=board, metric=metric, differences=differences))
    found, of_groups = _corrected(found), _corrected(of_groups)
    placed = {board.board: _ranks(board, compared[board.board]) for board in found}
    methods = [m.model_copy(update={"rank": placed[m.board].get(m.method)}) for m in methods]
    order = {board: place for place, board in enumerate(boards)}
    methods.sort(key=lambda m: (order[m.board], m.rank is None, -m.shown.accuracy))
    report = StudyReport(
        name=study.name,
        file=study.file,
        updated=study.updated,
        axes=study.axes,
        over=[name for name in OVER if name in over and name in study.axes],
        metric=metric,
        tests_over=study.over,
        cells=len(study.cells),
        done=study.done,
        failed=study.failed,
        rows=[one.row for one in runs],
        methods=methods,
        differences=found,
        groups=groups,
        group_differences=[one for one in of_groups if one.differences],
        ranks=_mean_ranks(methods),
        robustness=_robustness(methods, study.shifts),
        looks=looks,
    )
    from bench.boards.study.words import notes

    return report.model_copy(update={"notes": notes(report, margin)})


def _method(
    board: str, one: MethodRuns, study: Study, metric: str, looks: int | None
) -> StudyMethod:
    rows = [member.row for member in one.members]
    clusters = clusters_of([one]) if study.whole_groups else None
    seconds = [r.seconds / r.n for r in rows if r.seconds and r.n]
    first = rows[0]
    right, tested = (one.answers.values(name, one.labels) for name in ("accuracy", metric))
    return StudyMethod(
        board=board,
        method=one.name,
        axes=one.axes,
        trained_on=first.trained_on,
        runs=len(rows),
        declared=sum(_is_of(cell.axes, one.axes, first.axes) for cell in study.cells),
        spread=spread(right, clusters, study.over),
        tested=None if metric == "accuracy" else spread(tested, clusters, study.over),
        balanced_accuracy=float(np.mean([r.figure("balanced_accuracy") or 0.0 for r in rows])),
        cost=one.cost,
        seconds_per_image=float(np.mean(seconds)) if seconds else None,
        worst_group=worst_group_of(one),
        looks=looks if first.split is not None and is_test(first.split) else None,
    )


def _is_of(cell: dict[str, str], method: dict[str, str], first: dict[str, str]) -> bool:
    """Tell whether a cell is a run of a method on the dataset of the method's first run."""
    same_data = all(cell.get(name) == first.get(name) for name in DATA)
    return same_data and all(cell.get(name) == label for name, label in method.items())


def _corrected(found: Sequence[BoardDifferences]) -> list[BoardDifferences]:
    """Correct p for all differences of the study."""
    flat = iter(corrected([one for board in found for one in board.differences]))
    return [
        board.model_copy(update={"differences": [next(flat) for _ in board.differences]})
        for board in found
    ]


def _ranks(board: BoardDifferences, names: Sequence[str]) -> dict[str, int | None]:
    """Return the rank of each method that was compared."""
    place = {name: row for row, name in enumerate(names)}
    better = np.zeros((len(names), len(names)), dtype=bool)
    for one in board.differences:
        first, second = (one.b, one.a) if one.difference > 0 else (one.a, one.b)
        better[place[first], place[second]] = one.different
    return dict(zip(names, ranks(better), strict=True))


def _mean_ranks(methods: Sequence[StudyMethod]) -> MeanRanks | None:
    boards = list(dict.fromkeys(m.board for m in methods))
    by = {(m.board, m.method): m.shown.accuracy for m in methods}
    names = [
        name
        for name in dict.fromkeys(m.method for m in methods)
        if all((board, name) in by for board in boards)
    ]
    if not names:
        return None
    return mean_ranks(names, np.array([[by[board, name] for name in names] for board in boards]))


def _robustness(
    methods: Sequence[StudyMethod], shifts: Sequence[tuple[str, str]]
) -> list[Robustness]:
    found = []
    for usual, shifted in shifts:
        before, after = (
            {
                m.method: m.spread.accuracy
                for m in methods
                if name in (m.board, m.board.split("/")[0])
            }
            for name in (usual, shifted)
        )
        names = [name for name in before if name in after]
        if names:
            values = [np.array([one[name] for name in names]) for one in (before, after)]
            found += robustness(names, usual, shifted, *values)
    return found
