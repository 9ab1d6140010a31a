"""What a study says: its methods on each dataset, what moves them, and which of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.boards.study_rows import StudyRow, StudyRun, study_runs
from bench.errors import UserError
from bench.stats.crossed import Spread, spread
from bench.stats.many import Difference, compare_all, corrected
from bench.stats.ranks import MeanRanks, mean_ranks
from bench.stats.shift import Robustness, robustness
from bench.store.decisions import Decisions
from bench.store.documents import Group
from bench.store.fields import Count, Document, Positive
from bench.store.looks import count_looks, is_test
from bench.store.studies import Study, read_study, results_of

DATA = ("dataset", "split")
OVER = ("seed", "template")  # axes whose runs are taken together as one method's
NONE = "–"  # the value of an axis that a cell does not have

Metric = Literal["accuracy", "balanced_accuracy"]
Floats = NDArray[np.float64]


class StudyMethod(Document):
    """One method on one dataset: what a study's table has in a line."""

    board: str
    """The dataset and its split."""
    method: str
    """Its place on all axes but those of the data, and those it is taken over."""
    axes: dict[str, str]
    trained_on: str | None
    """`dataset/split`; None: zero-shot."""
    runs: Positive
    declared: Positive
    """Runs that the study has of it."""
    spread: Spread
    """Of its accuracy."""
    balanced_accuracy: float
    cost: float
    """Evaluation equivalents per image, the mean over its runs."""
    seconds_per_image: float | None
    worst_group: Group | None = None
    rank: Positive | None = None
    """One more than the methods that are significantly better; None: of fewer images."""
    looks: Count | None = None
    """Finished runs on this split in the results folder; None: it is no test split."""


class BoardDifferences(Document):
    """The differences of the methods on one dataset."""

    board: str
    metric: str
    differences: list[Difference]


class StudyReport(Document):
    """A study's table and statistics, as `bench study FILE --show --json` prints them."""

    name: str
    file: str
    updated: str
    axes: list[str]
    over: list[str]
    """The axes whose runs are taken together."""
    cells: Count
    done: Count
    failed: Count
    rows: list[StudyRow]
    methods: list[StudyMethod]
    differences: list[BoardDifferences]
    ranks: MeanRanks | None = None
    """Over ten datasets and more."""
    robustness: list[Robustness] = Field(default_factory=list)
    looks: dict[str, Count] = Field(default_factory=dict)
    """Dataset and test split → finished runs on it, in the results folder."""
    notes: list[str] = Field(default_factory=list)
    """What a reader must know, in plain words."""

    def plain(self) -> dict[str, Any]:
        """Return what JSON holds of it: every field."""
        return self.model_dump(mode="json")


@dataclass
class _Method:
    """The runs of one method on one dataset."""

    name: str
    axes: dict[str, str]
    members: list[StudyRun]
    right: Floats | None = None
    """[seeds, templates, n], whether each image is right; None: there is nothing yet."""
    decided: Decisions | None = None
    """Of its first run, in the order of `right`."""


def study_report(
    folder: Path,
    over: Sequence[str] = OVER,
    metric: Metric = "accuracy",
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
    margin = study.margin if margin is None else margin
    runs = list(study_runs(folder, study))
    boards = _boards(runs, study, over)
    methods: list[StudyMethod] = []
    found: list[BoardDifferences] = []
    looks = {
        f"{name}/{split}": count
        for (name, split, data), count in count_looks([results_of(folder)]).items()
        if any((r.row.dataset, r.row.split, r.row.fingerprint) == (name, split, data) for r in runs)
    }
    for board, members in boards.items():
        whole = _of_most_images(members)
        clusters = _clusters(whole) if study.whole_groups else None
        weights = _weights(whole, metric)
        given = [(m.name, m.right) for m in whole if m.right is not None]
        found.append(
            BoardDifferences(
                board=board,
                metric=metric,
                differences=compare_all(given, margin, weights, clusters),
            )
        )
        methods += [_method(board, one, study, looks.get(board)) for one in members]
    found = _corrected(found)
    methods = [_ranked(method, found) for method in methods]
    order = {board: place for place, board in enumerate(boards)}
    methods.sort(key=lambda m: (order[m.board], m.rank is None, -m.spread.accuracy))
    report = StudyReport(
        name=study.name,
        file=study.file,
        updated=study.updated,
        axes=study.axes,
        over=[name for name in OVER if name in over and name in study.axes],
        cells=len(study.cells),
        done=study.done,
        failed=study.failed,
        rows=[one.row for one in runs],
        methods=methods,
        differences=found,
        ranks=_mean_ranks(methods),
        robustness=_robustness(methods, study.shifts),
        looks=looks,
    )
    from bench.boards.study_words import notes

    return report.model_copy(update={"notes": notes(report, margin)})


def _boards(
    runs: Iterable[StudyRun], study: Study, over: Sequence[str]
) -> dict[str, list[_Method]]:
    """Return the methods of each dataset that have a decided image."""
    boards: dict[str, dict[str, _Method]] = {}
    apart = [name for name in study.axes if name not in (*DATA, *over)]
    varied = [n for n in apart if len({r.axes.get(n, NONE) for r in study.cells}) > 1]
    for one in runs:
        if one.run is None or one.row.dataset is None:
            continue
        board = f"{one.row.dataset}/{one.row.split}"
        axes = {name: one.row.axes[name] for name in apart if name in one.row.axes}
        shown = " ".join(axes[n] for n in (varied or apart) if n in axes) or "the method"
        method = boards.setdefault(board, {}).setdefault(shown, _Method(shown, axes, []))
        method.members.append(one)
    for methods in boards.values():
        for method in methods.values():
            _read(method, over)
    return {b: [m for m in ms.values() if m.right is not None] for b, ms in boards.items()}


def _read(method: _Method, over: Sequence[str]) -> None:
    """Read a method's decisions into one array: of the runs that are of the most images."""
    most = max(member.row.n or 0 for member in method.members)
    grid: dict[tuple[str, str], StudyRun] = {}
    for member in method.members:
        if member.row.n == most:
            seed, template = (
                member.row.axes.get(name, NONE) if name in over else NONE for name in OVER
            )
            grid.setdefault((seed, template), member)
    seeds, templates = _complete(set(grid))
    first: Decisions | None = None
    planes = []
    for seed in seeds:
        for template in templates:
            run = grid[seed, template].run
            assert run is not None
            decided = run.decided()
            first = first or decided
            planes.append(_aligned(decided, first))
    if first is None or any(plane is None for plane in planes):
        return
    stacked = np.array(planes, dtype=np.float64)
    method.right = stacked.reshape(len(seeds), len(templates), -1)
    method.decided = first
    method.members = [grid[s, t] for s in seeds for t in templates]


def _complete(there: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return seeds and templates all of whose combinations are there, as many as can be had."""
    seeds, templates = ({key[axis] for key in there} for axis in (0, 1))
    while missing := [(s, t) for s in seeds for t in templates if (s, t) not in there]:
        worst_seed = max(sorted(seeds), key=lambda s: sum(key[0] == s for key in missing))
        worst_template = max(sorted(templates), key=lambda t: sum(key[1] == t for key in missing))
        share_seed = sum(key[0] == worst_seed for key in missing) / len(templates)
        share_template = sum(key[1] == worst_template for key in missing) / len(seeds)
        if share_seed >= share_template:
            seeds.remove(worst_seed)
        else:
            templates.remove(worst_template)
    return sorted(seeds), sorted(templates)


def _aligned(decided: Decisions, first: Decisions) -> NDArray[np.bool_] | None:
    """Return which of the first run's images are right in another run; None: it lacks some."""
    if decided.sample_ids.equals(first.sample_ids):
        return decided.correct
    import pyarrow.compute as pc

    places = pc.index_in(first.sample_ids, value_set=decided.sample_ids)
    if places.null_count:
        return None
    return np.asarray(decided.correct[places.to_numpy()])


def _of_most_images(members: Sequence[_Method]) -> list[_Method]:
    """Return the methods of the same, most, images, all in the order of the first of them."""
    most = max((m.right.shape[2] for m in members if m.right is not None), default=0)
    kept: list[_Method] = []
    for one in members:
        if one.right is None or one.decided is None or one.right.shape[2] != most:
            continue
        if kept and not one.decided.sample_ids.equals(kept[0].decided.sample_ids):  # type: ignore[union-attr]  # those that are kept were read
            import pyarrow.compute as pc

            first = kept[0].decided
            assert first is not None
            places = pc.index_in(first.sample_ids, value_set=one.decided.sample_ids)
            if places.null_count:
                continue
            one.right = one.right[:, :, places.to_numpy()]
            one.decided = first
        kept.append(one)
    return kept


def _clusters(members: Sequence[_Method]) -> NDArray[np.int64] | None:
    """Return which images belong together, where they have groups."""
    groups = members[0].decided.groups if members and members[0].decided else None
    if groups is None:
        return None
    _, codes = np.unique([g or "" for g in groups.to_pylist()], return_inverse=True)
    return np.asarray(codes, dtype=np.int64)


def _weights(members: Sequence[_Method], metric: Metric) -> Floats | None:
    """Return what each image counts in the metric, 1 on average; None: all alike."""
    if metric == "accuracy" or not members or members[0].decided is None:
        return None
    labels = members[0].decided.labels
    counts = np.bincount(labels)
    return np.asarray(len(labels) / (np.count_nonzero(counts) * counts[labels]))


def _method(board: str, one: _Method, study: Study, looks: int | None) -> StudyMethod:
    assert one.right is not None and one.decided is not None
    rows = [member.row for member in one.members]
    clusters = _clusters([one]) if study.whole_groups else None
    seconds = [r.seconds / r.n for r in rows if r.seconds and r.n]
    first = rows[0]
    return StudyMethod(
        board=board,
        method=one.name,
        axes=one.axes,
        trained_on=first.trained_on,
        runs=len(rows),
        declared=sum(_is_of(cell.axes, one.axes, first.axes) for cell in study.cells),
        spread=spread(one.right, clusters),
        balanced_accuracy=float(np.mean([r.balanced_accuracy or 0.0 for r in rows])),
        cost=float(np.mean([r.cost or 0.0 for r in rows])),
        seconds_per_image=float(np.mean(seconds)) if seconds else None,
        worst_group=_worst_group(one),
        looks=looks if first.split is not None and is_test(first.split) else None,
    )


def _is_of(cell: dict[str, str], method: dict[str, str], first: dict[str, str]) -> bool:
    """Tell whether a cell is a run of a method on the dataset of the method's first run."""
    same_data = all(cell.get(name) == first.get(name) for name in DATA)
    return same_data and all(cell.get(name) == label for name, label in method.items())


def _worst_group(one: _Method) -> Group | None:
    """Return the group with the lowest mean accuracy over the method's runs."""
    from bench.stats.shares import accuracy_interval

    if one.decided is None or one.decided.groups is None or one.right is None:
        return None
    names = np.array([g or "" for g in one.decided.groups.to_pylist()])
    each = one.right.mean(axis=(0, 1))
    found = [(float(each[names == g].mean()), str(g)) for g in np.unique(names) if g]
    if not found:
        return None
    share, name = min(found)
    n = int((names == name).sum())
    interval = accuracy_interval(round(share * n), n)
    return Group(group=name, n=n, accuracy=share, accuracy_ci95=interval)


def _corrected(found: Sequence[BoardDifferences]) -> list[BoardDifferences]:
    """Correct p for all differences of the study."""
    flat = iter(corrected([one for board in found for one in board.differences]))
    return [
        board.model_copy(update={"differences": [next(flat) for _ in board.differences]})
        for board in found
    ]


def _ranked(method: StudyMethod, found: Sequence[BoardDifferences]) -> StudyMethod:
    """Return a method with its rank among those that were compared."""
    board = next(one for one in found if one.board == method.board)
    most = max((one.n for one in board.differences), default=method.spread.images)
    if method.spread.images < most:
        return method
    better = sum(
        one.different
        and (
            (one.b == method.method and one.difference < 0)
            or (one.a == method.method and one.difference > 0)
        )
        for one in board.differences
    )
    return method.model_copy(update={"rank": 1 + better})


def _mean_ranks(methods: Sequence[StudyMethod]) -> MeanRanks | None:
    boards = list(dict.fromkeys(m.board for m in methods))
    by = {(m.board, m.method): m.spread.accuracy for m in methods}
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
