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
    """int64 [seeds, templates, n], the predicted classes; None: there is nothing yet."""
    seeds: tuple[str, ...] = ()
    """What the study calls them, in the order of `predictions`."""
    decided: Decisions | None = None
    """Of its first run, in the order of `predictions`."""

    @property
    def answers(self) -> Answers:
        """What its runs said."""
        assert self.predictions is not None
        return Answers(self.name, (self.predictions,))

    @property
    def cost(self) -> float:
        """Evaluation equivalents per image, the mean over its runs."""
        return float(np.mean([member.row.cost or 0.0 for member in self.members]))

    @property
    def labels(self) -> Ints:
        """int64 [n], the true classes."""
        assert self.decided is not None
        return self.decided.labels

    @property
    def images(self) -> int:
        """How many images all of its runs have."""
        return 0 if self.predictions is None else self.predictions.shape[2]


def read_methods(
    runs: Iterable[StudyRun], study: Study, over: Sequence[str]
) -> dict[str, list[MethodRuns]]:
    """Return the methods of each dataset that have a decided image."""
    boards: dict[str, dict[str, MethodRuns]] = {}
    apart = [name for name in study.axes if name not in (*DATA, *over)]
    varied = [n for n in apart if len({r.axes.get(n, NONE) for r in study.cells}) > 1]
    made = [one for one in runs if one.run is not None and one.row.dataset is not None]
    called: dict[str, set[str]] = {}  # board → what the study calls its dataset
    for one in made:
        called.setdefault(_board(one.row), set()).add(one.row.axes.get("dataset", NONE))
    for one in made:
        board = _board(one.row)
        if len(called[board]) > 1:
            board = f"{board} ({one.row.axes.get('dataset', NONE)})"
        axes = {name: one.row.axes[name] for name in apart if name in one.row.axes}
        shown = " ".join(axes[n] for n in (varied or apart) if n in axes) or "the method"
        method = boards.setdefault(board, {}).setdefault(shown, MethodRuns(shown, axes, []))
        method.members.append(one)
    for methods in boards.values():
        for method in methods.values():
            _read(method, over)
    decided = {
        board: [one for one in methods.values() if one.predictions is not None]
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
            planes.append(_aligned(decided, first))
    if first is None or any(plane is None for plane in planes):
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


def _aligned(decided: Decisions, first: Decisions) -> Ints | None:
    """Return what another run says of the first run's images; None: it lacks some."""
    places = _places(decided, first)
    return None if places is None else decided.predictions[places]


def _places(of: Decisions, first: Decisions) -> Ints | None:
    """Return where the first run's images are in another run.

    None: it lacks some, or has other labels for them.
    """
    import pyarrow.compute as pc

    found = pc.index_in(first.sample_ids, value_set=of.sample_ids)
    if found.null_count:
        return None
    places = values(found)
    return places if np.array_equal(of.labels[places], first.labels) else None


def of_most_images(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods of the same, most, images, all in the order of the first of them."""
    most = max((one.images for one in members), default=0)
    kept: list[MethodRuns] = []
    for one in members:
        if one.predictions is None or one.decided is None or one.images != most:
            continue
        first = kept[0].decided if kept else one.decided
        assert first is not None
        if (places := _places(one.decided, first)) is None:
            continue
        one.predictions, one.decided = one.predictions[:, :, places], first
        kept.append(one)
    return kept


def of_same_seeds(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods that can be compared over seeds: those with the same, enough, seeds."""
    counts = Counter(one.seeds for one in members if len(one.seeds) >= LEAST_SEEDS)
    usual = max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())
    return [one for one in members if one.seeds == usual]


def clusters_of(members: Sequence[MethodRuns]) -> NDArray[np.int64] | None:
    """Return which images belong together, where they have groups."""
    groups = members[0].decided.groups if members and members[0].decided else None
    if groups is None:
        return None
    _, codes = np.unique([g or "" for g in groups.to_pylist()], return_inverse=True)
    return np.asarray(codes, dtype=np.int64)


def worst_group_of(one: MethodRuns) -> Group | None:
    """Return the group with the lowest mean accuracy over the method's runs."""
    if one.decided is None or one.decided.groups is None or one.predictions is None:
        return None
    names = np.array([g or "" for g in one.decided.groups.to_pylist()])
    each = (one.predictions == one.labels).mean(axis=(0, 1))
    found = [(float(each[names == g].mean()), str(g)) for g in np.unique(names) if g]
    if not found:
        return None
    share, name = min(found)
    n = int((names == name).sum())
    interval = accuracy_interval(round(share * n), n)
    return Group(group=name, n=n, accuracy=share, accuracy_ci95=interval)
