"""The runs of a study: their rows, and methods of several runs, read into arrays over images.

In shapes, S is the number of seeds, T the number of templates and n the number of images.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.contracts.metric import Metric
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Floats, Ints
from bench.errors import UserError, warn_user
from bench.inputs.subsets import select_subset
from bench.reports.facts import NONE
from bench.reports.rows import RunRow
from bench.reports.run_view import RunView
from bench.running.study.values import DATA
from bench.stats.inference.difference_tests import Answers
from bench.stats.inference.shares import Estimate, accuracy_interval
from bench.stats.inference.variance import MIN_SEEDS
from bench.stats.metrics.metric_checks import MetricParts, metric_parts
from bench.store.columns import metric_input, needs_top
from bench.store.formats.decisions import Decisions, shared_rows
from bench.store.runs import StoredRun, read_run
from bench.store.studies import CellStatus, Published, Study, StudyCell


class StudyRow(RunRow):
    """One run of a study; values that are not known yet are None."""

    axes: dict[str, str]  # axis → value
    status: CellStatus  # waiting, pilot, complete, failed_samples or failed
    error: str | None = None  # reason of the failure
    published: Published | None = None  # published figure, if there is one


def study_run(cell: StudyCell, results: Path) -> StudyRow:
    """Return the row of a declared run, which has the run if the folder `results` has it."""
    declared = {name: getattr(cell, name) for name in ("axes", "status", "error", "published")}
    bare = StudyRow(**declared, run_id=cell.run_id, n_asked=cell.images)
    if cell.run_id is None:
        return bare
    for path in (results / cell.run_id, results / "published" / cell.run_id):
        with suppress(UserError):
            run = read_run(path)
            if name := cell.differing_setting(run.manifest):
                warn_user(f"Left out: {path} is not the run of its cell: its {name} differs.")
                continue
            limit = cell.config.limit
            if run.summary is not None and limit is not None:
                run = _limit_run(run, limit)  # it may have more images than the study declares
            view = RunView(run)
            if view.so_far is None:  # no image is decided
                continue
            if cell.published is not None:
                declared["published"] = _compared(cell.published, view)
            return StudyRow.of(view, **declared, n_asked=cell.images)
    return bare.model_copy(update={"status": "waiting"})


def _compared(figure: Published, run: RunView) -> Published:
    """Return a published figure with the difference of a run from it."""
    figure, ours = figure.compared(run.n), run.summary.metrics.metric(figure.metric)
    if figure.value is None or ours is None:
        return figure
    update: dict[str, object] = {"difference": ours - figure.value}
    if figure.metric == "accuracy" and figure.images is not None and run.stop is None:
        count = round(figure.value * figure.images)
        theirs = Estimate(figure.value, accuracy_interval(count, figure.images))
        change = Estimate(ours, run.summary.metrics.accuracy_ci95) - theirs
        update["difference_ci95"] = change.interval
    return figure.model_copy(update=update)


def _limit_run(run: StoredRun, limit: int) -> StoredRun:
    """Return a run restricted to `limit` images; its summary is dropped if any are left out."""
    manifest = run.manifest
    if len(manifest.samples) <= limit:
        return run
    decided = run.decided()
    chosen = select_subset(decided.sample_ids.to_pylist(), decided.labels.tolist(), limit)
    part = manifest.model_copy(update={"samples": chosen})
    return StoredRun(run.path, part, None)


@dataclass(frozen=True, kw_only=True)
class MethodRuns(Answers):
    """The runs of one method on one dataset: all seeds with all templates, on the same images."""

    axes: dict[str, str]  # axis → value
    members: list[StudyRow]  # the S × T runs
    seeds: tuple[str, ...]  # seeds, in the order of the arrays
    decided: Decisions  # decisions of the first run, whose images have the order of the arrays

    @property
    def right(self) -> Floats:
        """Whether each prediction is right, 0 or 1, float64 [S, T, n]."""
        return np.asarray(self.predictions == self.decided.labels, dtype=np.float64)

    def mapped(self, function: Callable[[Any], Any]) -> Self:
        """Return a copy with a function applied to `predictions` and `values`."""
        return replace(self, predictions=function(self.predictions), values=function(self.values))


def varied_axes(names: Iterable[str], cells: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the axes whose value differs between runs; `cells` has axis → value for each run."""
    return [name for name in names if len({cell.get(name, NONE) for cell in cells}) > 1]


def read_methods(
    rows: Iterable[StudyRow], study: Study, over: Sequence[str], spec: MetricSpec, metric: Metric
) -> dict[str, list[MethodRuns]]:
    """Return the methods that have decided images, by the name of their dataset and split.

    The runs of a method are pooled over the axes `over`. Raises UserError if a run lacks what the
    tested metric needs.
    """
    boards: dict[str, dict[str, list[StudyRow]]] = {}
    apart = [name for name in study.axes if name not in (*DATA, *over)]
    varied = varied_axes(apart, [cell.axes for cell in study.cells])
    stored = [row for row in rows if row.path is not None]
    dataset_names: dict[str, set[str]] = {}  # board → names of its dataset in the study
    for row in stored:
        dataset_names.setdefault(board_name(row), set()).add(row.axes.get("dataset", NONE))
    for row in stored:
        board = board_name(row)
        if len(dataset_names[board]) > 1:
            board = f"{board} ({row.axes.get('dataset', NONE)})"
        axes = row.axes
        name = " ".join(axes[n] for n in (varied or apart) if n in axes) or "the method"
        boards.setdefault(board, {}).setdefault(name, []).append(row)
    read: dict[str, list[MethodRuns]] = {}
    for board, methods in boards.items():
        for name, members in methods.items():
            if (method := _read_method(name, members, apart, over, spec, metric)) is not None:
                on_board = read.setdefault(board, [])
                if on_board and _are_alike(on_board[0].decided, method.decided):
                    method = replace(method, decided=on_board[0].decided)  # one copy in memory
                on_board.append(method)
    return read


def _are_alike(a: Decisions, b: Decisions) -> bool:
    """Return whether the images and their order, labels and groups are the same."""
    groups: Any = a.groups, b.groups
    same = np.array_equal(a.labels, b.labels) and np.array_equal(*groups)
    return same and a.sample_ids.equals(b.sample_ids)


def board_name(row: StudyRow) -> str:
    """Return the dataset and split of a run, as a name."""
    return f"{row.dataset}/{row.split}"


def _read_method(
    name: str,
    members: Sequence[StudyRow],
    apart: Sequence[str],
    over: Sequence[str],
    spec: MetricSpec,
    metric: Metric,
) -> MethodRuns | None:
    """Read the runs of a method with the most images; None if they are on different images.

    `apart` are the axes that distinguish methods. The values are those of the images, or influence
    values if a run has these. Raises UserError if a run lacks something that the metric needs, or
    if the metric is not such a mean.
    """
    seeds, templates, used = _most_images(members, over)
    first: Decisions | None = None
    predictions, values, read = [], [], []
    for row in used:
        decided, of_images, parts = _read_values(row.run.stored, spec, metric)
        first = first or decided
        if (rows := _rows_of(first, decided)) is None:
            return None
        predictions.append(decided.predictions[rows])
        values.append(of_images[rows])
        read.append(parts)
    if first is None:
        return None
    shape, cell = (len(seeds), len(templates), len(first)), members[0].axes
    return MethodRuns(
        name=name,
        predictions=np.reshape(predictions, shape),
        values=np.reshape(values, shape),
        basis=next((parts.basis for parts in read if parts.basis != "images"), "images"),
        images=min(parts.images for parts in read),
        axes={axis: cell[axis] for axis in apart if axis in cell},
        members=used,
        seeds=tuple(seeds),
        decided=first,
    )


def _most_images(
    members: Sequence[StudyRow], over: Sequence[str]
) -> tuple[list[str], list[str], list[StudyRow]]:
    """Return seeds, templates, and their runs in this order, of those with the most images."""
    most = max(member.n_samples or 0 for member in members)
    grid: dict[tuple[str, str], StudyRow] = {}
    for member in members:
        if member.n_samples == most:
            pooled = {axis: member.axes.get(axis, NONE) for axis in over}
            grid.setdefault((pooled.get("seed", NONE), pooled.get("template", NONE)), member)
    seeds, templates = _complete_grid(set(grid))
    return seeds, templates, [grid[cell] for cell in product(seeds, templates)]


def _read_values(
    run: StoredRun, spec: MetricSpec, metric: Metric
) -> tuple[Decisions, Floats, MetricParts]:
    """Read a run's decisions, and a metric with its values, float64 [n].

    Raises UserError if the metric is no mean over images, or the run lacks what it needs.
    """
    decided = run.decided(top=needs_top(spec))
    data = metric_input(run.path, run.manifest, decided, spec, metric)
    parts = metric_parts(spec, metric, data)
    if parts.values is None:
        raise UserError(
            f"A study needs a metric that is a mean over images, and {spec.words} is not one."
            f" To test two runs by a bootstrap, use bench compare A B --metric {spec.name}."
        )
    return decided, parts.values, parts


def _complete_grid(cells: set[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return seeds and templates whose combinations are all among `cells`.

    The seed or template that lacks the largest share of them is dropped until none is missing.
    """
    seeds, templates = ({cell[axis] for cell in cells} for axis in (0, 1))
    while missing := [cell for cell in product(seeds, templates) if cell not in cells]:
        of_seed, of_template = (Counter(cell[axis] for cell in missing) for axis in (0, 1))
        seed = max(sorted(of_seed), key=of_seed.__getitem__)
        template = max(sorted(of_template), key=of_template.__getitem__)
        if of_seed[seed] / len(templates) < of_template[template] / len(seeds):
            templates.remove(template)
        else:
            seeds.remove(seed)
    return sorted(seeds), sorted(templates)


def _rows_of(first: Decisions, other: Decisions) -> Ints | None:
    """Return the rows of the images of `first` in `other`; None if an image or a label differs."""
    own, rows = shared_rows(first, other)
    same = len(own) == len(first) and np.array_equal(other.labels[rows], first.labels)
    return rows if same else None


def select_most_images(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods that have the most images, if these are those of the first such method.

    The images of all returned methods have the order of the first one.
    """
    most = max((len(method.decided) for method in members), default=0)
    largest = [method for method in members if len(method.decided) == most]
    same = []
    for method in largest:
        first = largest[0].decided
        if method.decided is first:
            same.append(method)
        elif (rows := _rows_of(first, method.decided)) is not None:
            ordered = method.mapped(partial(np.take, indices=rows, axis=2))
            same.append(replace(ordered, decided=first))
    return same


def select_same_seeds(members: Sequence[MethodRuns]) -> list[MethodRuns]:
    """Return the methods that can be compared over seeds.

    These are the methods with the most common set of at least `MIN_SEEDS` seeds, and those that
    do not depend on a seed, whose decisions are repeated for each seed.
    """
    counts = Counter(m.seeds for m in members if len(m.seeds) >= MIN_SEEDS)
    usual = max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())
    return [
        m if m.seeds == usual else m.mapped(partial(np.repeat, repeats=len(usual), axis=0))
        for m in members
        if usual and m.seeds in (usual, (NONE,))
    ]


def image_clusters(members: Sequence[MethodRuns], whole_groups: bool) -> Ints | None:
    """Return the number of the cluster of each image, int64 [n], or None if they are independent.

    It is that of the image's group, for `whole_groups`, or else of the image that an item is about.
    """
    if not members:
        return None
    decided = members[0].decided
    if not whole_groups or decided.groups is None:
        return decided.clusters
    return np.unique(decided.groups, return_inverse=True)[1]
