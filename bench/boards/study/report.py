"""Make the report of a study: its methods on each dataset, their spread and their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.boards.study.corruption import corruption_errors, is_clean
from bench.boards.study.documents import (
    BoardDifferences,
    StudyGroup,
    StudyMethod,
    StudyReport,
    report_notes,
)
from bench.boards.study.methods import (
    MethodRuns,
    board_name,
    find_worst_group,
    image_clusters,
    read_methods,
    select_most_images,
    select_same_seeds,
    varied_axes,
)
from bench.boards.study.rows import study_run
from bench.contracts.metrics import MetricSpec
from bench.discovery.loading import metric_of_runs
from bench.errors import UserError
from bench.running.study.rounds import DATA, OVER
from bench.stats.crossed import spread
from bench.stats.difference_tests import Answers
from bench.stats.many import (
    Difference,
    MeanRanks,
    Robustness,
    compare_all,
    corrected,
    mean_ranks,
    ranks,
    robustness,
)
from bench.stats.measures import make_metric
from bench.store.looks import count_looks, is_test, look_of
from bench.store.studies import Study, read_study, results_of

BACKBONE = "backbone"  # the axis whose values are grouped


def study_report(
    folder: Path,
    over: Sequence[str] = OVER,
    metric: str = "accuracy",
    margin: float | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> StudyReport:
    """Return the report of a study, based on the runs that are stored so far.

    The runs of a method are pooled over the axes `over`, of `seed` and `template`. `metric`, with
    its `parameters`, is the one whose differences are tested; those below `margin` count as equal
    (None: the margin in the study's file). Raises UserError if the study is missing, runs cannot be
    pooled over these axes, or a run lacks what the metric needs.
    """
    spec = metric_of_runs(metric)
    metric_instance = make_metric(spec, parameters)
    study = read_study(folder)
    for name in over:
        if name not in OVER:
            raise UserError(f"--over {name}: runs can be pooled over {' and '.join(OVER)}.")
    if study.over == "seeds" and "seed" not in over:
        raise UserError('The study tests over seeds (over = "seeds"), so --over must include seed.')
    margin = study.margin if margin is None else margin
    runs = [study_run(cell, results_of(folder)) for cell in study.cells]
    clean = [run for run in runs if is_clean(run)]
    boards = read_methods(clean, study, over, spec, metric_instance)
    methods: list[StudyMethod] = []
    groups: list[StudyGroup] = []
    between_methods: list[BoardDifferences] = []
    between_groups: list[BoardDifferences] = []
    tested_names: dict[str, list[str]] = {}  # board → methods whose differences are tested
    counts = count_looks([results_of(folder)])
    looks = {
        board_name(run.row): counts[key]
        for run in runs
        if run.run is not None and (key := look_of(run.run.manifest).key) in counts
    }
    for board, members in boards.items():
        largest = select_most_images(members)
        clusters = image_clusters(largest) if study.whole_groups else None
        tested = select_same_seeds(largest) if study.over == "seeds" else largest
        tested_names[board] = [method.name for method in tested]
        methods += [_method(board, m, study, spec, looks.get(board)) for m in members]
        if study.stop is not None:  # tests that assume a fixed number of images would be invalid
            continue
        answers, labels = [method.answers for method in tested], largest[0].decided.labels
        differences = compare_all(answers, labels, spec, margin, clusters, study.over)
        between_methods.append(
            BoardDifferences(board=board, metric=metric, differences=differences)
        )
        pooled, differences = _compare_groups(board, largest, study, spec, margin)
        groups += pooled
        between_groups.append(BoardDifferences(board=board, metric=metric, differences=differences))
    between_methods, between_groups = (
        _correct_p_values(between_methods),
        _correct_p_values(between_groups),
    )
    sign = spec.sign
    rank_of = {
        board.board: _ranks(board, tested_names[board.board], sign) for board in between_methods
    }
    methods = [
        m.model_copy(update={"rank": rank_of.get(m.board, {}).get(m.method)}) for m in methods
    ]
    order = {board: index for index, board in enumerate(boards)}
    methods.sort(key=lambda m: (order[m.board], m.rank is None, -(sign or 1) * m.shown.accuracy))
    report = StudyReport(
        name=study.name,
        file=study.file,
        updated=study.updated,
        axes=study.axes,
        over=[name for name in OVER if name in over and name in study.axes],
        metric=metric,
        metric_parameters=dict(parameters or {}),
        tests_over=study.over,
        cells=len(study.cells),
        done=study.done,
        failed=study.failed,
        rows=[run.row for run in runs],
        methods=methods,
        differences=between_methods,
        groups=groups,
        group_differences=[board for board in between_groups if board.differences],
        ranks=_mean_ranks(methods, sign),
        robustness=_robustness(methods, study.shifts),
        corruption=corruption_errors(runs, study, over, spec, metric_instance)
        if len(clean) < len(runs)
        else [],
        looks=looks,
        stop=study.stop,
        standings=study.standings,
    )
    return report.model_copy(update={"notes": report_notes(report, margin)})


def _method(
    board: str, method: MethodRuns, study: Study, metric: MetricSpec, looks: int | None
) -> StudyMethod:
    rows = [member.row for member in method.members]
    clusters = image_clusters([method]) if study.whole_groups else None
    seconds = [r.seconds / r.n for r in rows if r.seconds and r.n]
    first = rows[0]
    cell_axes = {**{name: first.axes.get(name) for name in DATA}, **method.axes}
    tested = None
    if metric.name != "accuracy":
        tested = spread(method.measured, clusters, study.over, metric.range)
    return StudyMethod(
        board=board,
        method=method.name,
        axes=method.axes,
        trained_on=first.trained_on,
        runs=len(rows),
        declared=sum(
            all(cell.axes.get(name) == value for name, value in cell_axes.items())
            for cell in study.cells
        ),
        spread=spread(method.right, clusters, study.over),
        tested=tested,
        balanced_accuracy=float(np.mean([r.metric("balanced_accuracy") or 0.0 for r in rows])),
        cost=method.cost,
        seconds_per_image=float(np.mean(seconds)) if seconds else None,
        worst_group=find_worst_group(method),
        looks=looks if first.split is not None and is_test(first.split) else None,
    )


def _correct_p_values(boards: Sequence[BoardDifferences]) -> list[BoardDifferences]:
    flat = iter(corrected([pair for board in boards for pair in board.differences]))
    return [
        board.model_copy(update={"differences": [next(flat) for _ in board.differences]})
        for board in boards
    ]


def _ranks(board: BoardDifferences, names: Sequence[str], sign: int) -> dict[str, int | None]:
    """Return ranks; `sign` is 1 if larger values are better, -1 if smaller; with 0, none."""
    if not sign:
        return {}
    index = {name: row for row, name in enumerate(names)}
    better = np.zeros((len(names), len(names)), dtype=bool)
    for pair in board.differences:
        winner, loser = (pair.b, pair.a) if sign * pair.difference > 0 else (pair.a, pair.b)
        better[index[winner], index[loser]] = pair.different
    return dict(zip(names, ranks(better), strict=True))


def _mean_ranks(methods: Sequence[StudyMethod], sign: int) -> MeanRanks | None:
    boards = list(dict.fromkeys(m.board for m in methods))
    value = {(m.board, m.method): sign * m.shown.accuracy for m in methods}
    names = [
        name
        for name in dict.fromkeys(m.method for m in methods)
        if all((board, name) in value for board in boards)
    ]
    if not names or not sign:
        return None
    return mean_ranks(names, np.array([[value[board, name] for name in names] for board in boards]))


def _robustness(
    methods: Sequence[StudyMethod], shifts: Sequence[tuple[str, str]]
) -> list[Robustness]:
    """Return the robustness of the methods under shifts, given as (usual, shifted) datasets."""
    results = []
    for usual, shifted in shifts:
        before, after = (
            {
                m.method: m.spread.accuracy
                for m in methods
                if board in (m.board, m.board.split("/")[0])
            }
            for board in (usual, shifted)
        )
        names = [name for name in before if name in after]
        if names:
            values = [np.array([shares[name] for name in names]) for shares in (before, after)]
            results += robustness(names, usual, shifted, *values)
    return results


def _compare_groups(
    board: str,
    methods: Sequence[MethodRuns],
    study: Study,
    metric: MetricSpec,
    margin: float | None,
) -> tuple[list[StudyGroup], list[Difference]]:
    """Return the groups of methods by that of their backbone, and their differences."""
    groups = study.backbone_groups.items()
    group_of = {name: group for group, names in groups for name in names}
    pooled: dict[tuple[tuple[str, str], ...], list[MethodRuns]] = {}  # axes and values → methods
    for method in methods:
        if (group := group_of.get(method.axes.get(BACKBONE, ""))) is not None:
            pooled.setdefault(tuple({**method.axes, BACKBONE: group}.items()), []).append(method)
    if not pooled:
        return [], []
    cells = [dict(key) for key in pooled]
    varied = varied_axes(dict.fromkeys(axis for cell in cells for axis in cell), cells)
    labels = methods[0].decided.labels
    clusters = image_clusters(methods) if study.whole_groups else None
    answers, studied = [], []
    for axes, members in zip(cells, pooled.values(), strict=True):
        answer = Answers(
            " ".join(axes[axis] for axis in varied or [BACKBONE] if axis in axes),
            tuple(method.predictions for method in members),
            tuple(method.measured for method in members),
            "influence" if any(m.method == "influence" for m in members) else "images",
        )
        variation = spread(answer.member_means, clusters, within=metric.range)
        answers.append(answer)
        studied.append(
            StudyGroup(
                board=board,
                group=answer.name,
                axes=axes,
                methods=[method.name for method in members],
                images=len(labels),
                value=variation.accuracy,
                interval=variation.interval,
                of_images=variation.of_images,
                of_backbones=variation.of_seeds,  # `spread` is given members in the place of seeds
                cost=float(np.mean([method.cost for method in members])),
            )
        )
    return studied, compare_all(answers, labels, metric, margin, clusters)
