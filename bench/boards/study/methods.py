"""The methods of a study: their runs read into arrays, image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.boards.study.rows import StudyRow, StudyRun
from bench.stats.crossed import LEAST_SEEDS
from bench.stats.many import Answers
from bench.stats.shares import accuracy_interval
from bench.store.arrow import values
from bench.store.decisions import Decisions
from bench.store.studies import Study
from bench.store.summary import Group

DATA = ("dataset", "split")
OVER = ("seed", "template")  # axes whose runs are taken together as one method's
NONE = "–"  # the value of an axis that a cell does not have

Ints = NDArray[np.int64]


@dataclass
class MethodRuns:
    """The runs of one method on one dataset."""

    name: str
    axes: dict[str, str]
    members: list[StudyRun]
    predictions: Ints | None = None
    """int64 [seeds, templates, n], the predicted classes; None: there are none yet."""
    seeds: tuple[str, ...] = ()  # names of the seeds in the study, in the order of `predictions`
    decided: Decisions | None = None  # decisions of the first run, in the order of `predictions`

    @property
    def answers(self) -> Answers:
        """The predictions under the name of the method."""
        assert self.predictions is not None
        return Answers(self.name, (self.predictions,))

    @property
    def cost(self) -> float:
        """Evaluation equivalents per image, mean over the runs."""
        return float(np.mean([member.row.cost or 0.0 for member in self.members]))

    @property
    def labels(self) -> Ints:
        """int64 [n], the true classes."""
        assert self.decided is not None
        return self.decided.labels

    @property
    def images(self) -> int:
        """Number of images that all runs have."""
        return 0 if self.predictions is None else self.predictions.shape[2]


def read_methods(
    runs: Iterable[StudyRun], study: Study, over: Sequence[str]
) -> dict[str, list[MethodRuns]]:
    """Return the methods of each dataset that have a decided image."""
    boards: dict[str, dict[str, MethodRuns]] = {}
    apart = [name for name in study.axes if name not in (*DATA, *over)]
    varied = [n for n in apart if len({r.axes.get(n, NONE) for r in study.cells}) > 1]
    made = [run for run in runs if run.run is not None and run.row.dataset is not None]
    labels: dict[str, set[str]] = {}  # board → names of its dataset in the study
    for run in made:
        labels.setdefault(_board(run.row), set()).add(run.row.axes.get("dataset", NONE))
    for run in made:
        board = _board(run.row)
        if len(labels[board]) > 1:
            board = f"{board} ({run.row.axes.get('dataset', NONE)})"
        axes = {name: run.row.axes[name] for name in apart if name in run.row.axes}
        shown = " ".join(axes[n] for n in (varied or apart) if n in axes) or "the method"
        method = boards.setdefault(board, {}).setdefault(shown, MethodRuns(shown, axes, []))
        method.members.append(run)
    for methods in boards.values():
        for method in methods.values():
            _read(method, over)
    decided = {
        board: [method for method in methods.values() if method.predictions is not None]
        for board, methods in boards.items()
    }
    return {board: methods for board, methods in decided.items() if methods}


def _board(row: StudyRow) -> str:
    return f"{row.dataset}/{row.split}"


def _read(method: MethodRuns, over: Sequence[str]) -> None:
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
            if (places := _places(decided, first)) is None:
                return
            planes.append(decided.predictions[places])
    if first is None:
        return
    stacked = np.array(planes, dtype=np.int64)
    method.predictions = stacked.reshape(len(seeds), len(templates), -1)
    method.decided = first
    method.seeds = tuple(seeds)
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


def _places(of: Decisions, first: Decisions) -> Ints | None:
    """Return the rows of the first run's images in another run.

    None: it lacks some of them, or has other labels for them.
    """
    import pyarrow.compute as pc

    rows = pc.index_in(first.sample_ids, value_set=of.sample_ids)
    if rows.null_count:
        return None
    places = values(rows)
    return places if np.array_equal(of.labels[places], first.labels) else None


def of_most_images(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods with the most images, the same ones, in the order of the first method."""
    most = max((method.images for method in members), default=0)
    kept: list[MethodRuns] = []
    for method in members:
        if method.predictions is None or method.decided is None or method.images != most:
            continue
        first = kept[0].decided if kept else method.decided
        assert first is not None
        if (places := _places(method.decided, first)) is not None:
            method.predictions, method.decided = method.predictions[:, :, places], first
            kept.append(method)
    return kept


def of_same_seeds(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods that can be compared over seeds: those with the same, enough, seeds."""
    counts = Counter(m.seeds for m in members if len(m.seeds) >= LEAST_SEEDS)
    usual = max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())
    return [method for method in members if method.seeds == usual]


def clusters_of(members: Sequence[MethodRuns]) -> NDArray[np.int64] | None:
    """Return which images belong together, where they have groups."""
    groups = members[0].decided.groups if members and members[0].decided else None
    if groups is None:
        return None
    _, codes = np.unique([g or "" for g in groups.to_pylist()], return_inverse=True)
    return np.asarray(codes, dtype=np.int64)


def worst_group_of(method: MethodRuns) -> Group | None:
    """Return the group with the lowest mean accuracy over the runs of a method."""
    if method.decided is None or method.decided.groups is None or method.predictions is None:
        return None
    names = np.array([group or "" for group in method.decided.groups.to_pylist()])
    right = (method.predictions == method.labels).mean(axis=(0, 1))
    shares = [
        (float(right[names == group].mean()), str(group)) for group in np.unique(names) if group
    ]
    if not shares:
        return None
    share, name = min(shares)
    n = int((names == name).sum())
    interval = accuracy_interval(round(share * n), n)
    return Group(group=name, n=n, accuracy=share, accuracy_ci95=interval)
