"""The methods of a study: their runs read into arrays, image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bench.boards.study.rows import StudyRow, StudyRun
from bench.contracts.measuring import Metric
from bench.contracts.metrics import MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.running.study.rounds import DATA, OVER
from bench.stats.crossed import LEAST_SEEDS
from bench.stats.difference_tests import Answers, Method
from bench.stats.evidence import read_values
from bench.stats.shares import accuracy_interval
from bench.store.arrow import values
from bench.store.decisions import Decisions
from bench.store.studies import Study
from bench.store.summary import Group

NONE = "–"  # the value of an axis that a cell does not have


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method on one dataset."""

    name: str
    axes: dict[str, str]
    members: list[StudyRun]
    predictions: Ints  # int64 [seeds, templates, n], the predicted classes
    measured: Floats  # image values of the tested metric, whose mean it is, likewise
    method: Method  # what these values are
    seeds: tuple[str, ...]  # names of the seeds in the study, in the order of `predictions`
    decided: Decisions  # decisions of the first run, in the order of `predictions`

    @property
    def answers(self) -> Answers:
        """The predictions and values under the name of the method."""
        return Answers(self.name, (self.predictions,), (self.measured,), self.method)

    @property
    def right(self) -> Floats:
        """Whether each image is right, float64 [seeds, templates, n]."""
        return np.asarray(self.predictions == self.decided.labels, dtype=np.float64)

    def changed(self, change: Callable[[Any], Any]) -> MethodRuns:
        """Return the runs with arrays that this changes."""
        return replace(self, predictions=change(self.predictions), measured=change(self.measured))

    @property
    def cost(self) -> float:
        """Evaluation equivalents per image, mean over the runs."""
        return float(np.mean([member.row.cost or 0.0 for member in self.members]))

    @property
    def images(self) -> int:
        """Number of images that all runs have."""
        return len(self.decided)


def read_methods(
    runs: Iterable[StudyRun], study: Study, over: Sequence[str], spec: MetricSpec, metric: Metric
) -> dict[str, list[MethodRuns]]:
    """Return the methods of each dataset that have a decided image, with a metric of them.

    UserError: a run lacks what the metric needs.
    """
    boards: dict[str, dict[str, list[StudyRun]]] = {}
    apart = [name for name in study.axes if name not in (*DATA, *over)]
    varied = [n for n in apart if len({r.axes.get(n, NONE) for r in study.cells}) > 1]
    made = [run for run in runs if run.run is not None and run.row.dataset is not None]
    labels: dict[str, set[str]] = {}  # board → names of its dataset in the study
    for run in made:
        labels.setdefault(board_of(run.row), set()).add(run.row.axes.get("dataset", NONE))
    for run in made:
        board = board_of(run.row)
        if len(labels[board]) > 1:
            board = f"{board} ({run.row.axes.get('dataset', NONE)})"
        axes = run.row.axes
        shown = " ".join(axes[n] for n in (varied or apart) if n in axes) or "the method"
        boards.setdefault(board, {}).setdefault(shown, []).append(run)
    decided: dict[str, list[MethodRuns]] = {}
    for board, methods in boards.items():
        for shown, members in methods.items():
            if (method := _read(shown, members, apart, over, spec, metric)) is not None:
                decided.setdefault(board, []).append(method)
    return decided


def board_of(row: StudyRow) -> str:
    """Return the dataset and split of a run."""
    return f"{row.dataset}/{row.split}"


def _read(
    name: str,
    members: Sequence[StudyRun],
    apart: Sequence[str],
    over: Sequence[str],
    spec: MetricSpec,
    metric: Metric,
) -> MethodRuns | None:
    """Read a method's decisions into one array: of the runs that are of the most images.

    `apart` are the axes whose values tell methods apart. None: the runs are of different images.
    """
    most = max(member.row.n or 0 for member in members)
    grid: dict[tuple[str, str], StudyRun] = {}
    for member in members:
        if member.row.n == most:
            seed, template = (
                member.row.axes.get(axis, NONE) if axis in over else NONE for axis in OVER
            )
            grid.setdefault((seed, template), member)
    seeds, templates = _complete(set(grid))
    used = [grid[seed, template] for seed in seeds for template in templates]
    first: Decisions | None = None
    planes, measured = [], []
    method: Method = "images"
    for run in (member.run for member in used if member.run is not None):
        decided, image_values, kind = read_values(run, spec, metric)
        first = first or decided
        if (places := _places(decided, first)) is None:
            return None
        planes.append(decided.predictions[places])
        measured.append(image_values[places])
        method = kind if method == "images" else method
    if first is None:
        return None
    shape = len(seeds), len(templates), len(first)
    stacked, of_metric = np.reshape(planes, shape), np.reshape(measured, shape)
    values_of = members[0].row.axes
    axes = {axis: values_of[axis] for axis in apart if axis in values_of}
    return MethodRuns(name, axes, used, stacked, of_metric, method, tuple(seeds), first)


def _complete(there: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return as many seeds and templates as possible, all combinations of which are there."""
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
    """Return the rows of the first run's images in another run; None: it lacks some."""
    import pyarrow.compute as pc

    rows = pc.index_in(first.sample_ids, value_set=of.sample_ids)
    if rows.null_count:
        return None
    places = values(rows)
    return places if np.array_equal(of.labels[places], first.labels) else None


def of_most_images(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods with the most images, the same ones, in the order of the first method."""
    most = max((method.images for method in members), default=0)
    largest = [method for method in members if method.images == most]
    kept = []
    for method in largest:
        first = largest[0].decided
        if (places := _places(method.decided, first)) is not None:
            moved = method.changed(partial(np.take, indices=places, axis=2))
            kept.append(replace(moved, decided=first))
    return kept


def of_same_seeds(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods that can be compared over seeds: those with the same, enough, seeds.

    One whose run does not depend on the seed has the same decisions under each.
    """
    counts = Counter(m.seeds for m in members if len(m.seeds) >= LEAST_SEEDS)
    usual = max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())
    return [
        m if m.seeds == usual else m.changed(partial(np.repeat, repeats=len(usual), axis=0))
        for m in members
        if usual and m.seeds in (usual, (NONE,))
    ]


def clusters_of(members: Sequence[MethodRuns]) -> Ints | None:
    """Return which images belong together, where they have groups."""
    if not members or members[0].decided.groups is None:
        return None
    _, codes = np.unique(members[0].decided.groups, return_inverse=True)
    return np.asarray(codes, dtype=np.int64)


def worst_group_of(method: MethodRuns) -> Group | None:
    """Return the group with the lowest mean accuracy over the runs of a method."""
    if (names := method.decided.groups) is None:
        return None
    right = (method.predictions == method.decided.labels).mean(axis=(0, 1))
    shares = [
        (float(right[names == group].mean()), str(group)) for group in np.unique(names) if group
    ]
    if not shares:
        return None
    share, name = min(shares)
    n = int((names == name).sum())
    interval = accuracy_interval(round(share * n), n)
    return Group(group=name, n=n, accuracy=share, accuracy_ci95=interval)
