"""Make the report of a study: its methods on each board, their spread and their differences.

A board is a split of a dataset, corrupted or not, on whose images methods are compared.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.metric_spec import MetricSpec
from bench.discovery.queries import metric_of_runs
from bench.errors import UserError
from bench.machine.stages import counted
from bench.reports.study.documents import BoardDifferences, StudyMethod, StudyReport, explained
from bench.reports.study.methods import (
    MethodRuns,
    StudyRow,
    board_name,
    image_clusters,
    read_methods,
    select_most_images,
    select_same_seeds,
    study_run,
)
from bench.reports.study.shifts import (
    Change,
    Estimates,
    corruption_changes,
    corruption_errors,
    dataset_changes,
    is_clean,
    read_corrupted,
)
from bench.running.study.values import DATA, POOLED
from bench.stats.inference.class_metrics import interval_caveat
from bench.stats.inference.difference_tests import (
    MethodDifference,
    Rank,
    compare_all,
    corrected,
    metric_spread,
    ranks,
)
from bench.stats.inference.shares import Estimate, worst_group
from bench.stats.inference.variance import spread
from bench.stats.metrics.metric_values import make_metric
from bench.store.runs import count_test_set_uses, is_test, test_set_use
from bench.store.studies import Study, StudyHead, read_study, results_of


def study_report(
    folder: Path,
    over: Sequence[str] = POOLED,
    metric: str = "accuracy",
    margin: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    reference: Path | None = None,
) -> StudyReport:
    """Return the report of a study, based on the runs that are stored so far.

    The runs of a method are pooled over the axes `over`, of `seed` and `template`; `study.over` is
    something else, the population that tests generalise to. `metric`, with its `parameters`, is the
    one whose differences are tested; those below `margin` count as equal
    (None: the margin in the study's file). `reference` is a file of other models' accuracies for
    `reference_line`; None for no effective robustness. Raises UserError if the study is missing,
    runs cannot be pooled over these axes, the reference does not fit the study, or a run lacks what
    the metric needs.
    """
    spec, study = metric_of_runs(metric), read_study(folder)
    _check_request(study, over, metric, reference)
    margin = study.margin if margin is None else margin
    instance = make_metric(spec, parameters)
    declared_runs = counted(study.cells, "Reading runs", len(study.cells), "runs")
    rows = [study_run(declared, results_of(folder)) for declared in declared_runs]
    boards = read_methods(filter(is_clean, rows), study, over, spec, instance)
    corrupted = read_corrupted(rows, study, over, spec, instance)
    differences = _compared(boards, study, spec, margin)
    uses = _test_set_uses(rows, folder)
    methods = _methods(boards, differences, study, spec, uses)
    changes: list[Change] = []
    if study.stop is None:
        changes += dataset_changes(_estimates(methods, differences), study.shifts, reference)
        changes += corruption_changes(corrupted, study.whole_groups, spec)
    report = StudyReport(
        **{name: getattr(study, name) for name in StudyHead.model_fields},
        over=[name for name in POOLED if name in over and name in study.axes],
        metric=metric,
        metric_parameters=dict(parameters or {}),
        tests_over=study.over,
        cells=len(study.cells),
        done=study.done,
        failed=study.failed,
        rows=rows,
        methods=_best_first(methods, spec),
        differences=[
            BoardDifferences(board=board, metric=metric, differences=pairs)
            for board, pairs in differences.items()
        ],
        changes=changes,
        corruption=corruption_errors(corrupted, spec),
        looks=uses,
    )
    report = explained(report, margin)
    return report.model_copy(update={"notes": [*report.notes, *_caveats(boards, spec)]})


def _check_request(study: Study, over: Sequence[str], metric: str, reference: Path | None) -> None:
    """Raise UserError if a study cannot be reported over these axes or with a reference."""
    for name in over:
        if name not in POOLED:
            raise UserError(f"--over {name}: runs can be pooled over {' and '.join(POOLED)}.")
    if study.over == "seeds" and "seed" not in over:
        raise UserError('The study tests over seeds (over = "seeds"), so --over must include seed.')
    if reference is not None and (metric != "accuracy" or not study.shifts):
        raise UserError(
            "--reference gives accuracies on the datasets of a study's shifts: its file must have"
            " `shifts`, and --metric must be accuracy."
        )


def _test_set_uses(rows: Sequence[StudyRow], folder: Path) -> dict[str, int]:
    """Return how many runs of the results folder were scored on each board's test images."""
    counts = count_test_set_uses([results_of(folder)])
    keys = [(board_name(row), test_set_use(row.run.manifest).key) for row in rows if row.path]
    return {board: counts[key] for board, key in keys if key in counts}


def _compared(
    boards: Mapping[str, Sequence[MethodRuns]], study: Study, spec: MetricSpec, margin: float | None
) -> dict[str, list[MethodDifference]]:
    """Return the tested differences of each board, corrected for those of all boards together.

    There are none where a stopping rule ended the runs, since the tests assume a fixed number of
    images.
    """
    if study.stop is not None:
        return {}
    pairs: dict[str, list[MethodDifference]] = {}
    for board, members in boards.items():
        largest = select_most_images(members)
        clusters = image_clusters(largest, study.whole_groups)
        tested = select_same_seeds(largest) if study.over == "seeds" else largest
        labels = largest[0].decided.labels
        pairs[board] = compare_all(tested, labels, spec, margin, clusters, study.over)
    together = iter(corrected([pair for on_board in pairs.values() for pair in on_board]))
    return {board: [*islice(together, len(on_board))] for board, on_board in pairs.items()}


def _methods(
    boards: Mapping[str, Sequence[MethodRuns]],
    differences: Mapping[str, Sequence[MethodDifference]],
    study: Study,
    spec: MetricSpec,
    uses: Mapping[str, int],
) -> list[StudyMethod]:
    """Return the methods of each board in the order of the study, with their ranks."""
    methods = []
    for board, members in boards.items():
        rank_of = _ranks(differences.get(board, []), spec.sign)
        methods += [
            _method(board, m, study, spec, uses.get(board), rank_of.get(m.name)) for m in members
        ]
    return methods


def _best_first(methods: Sequence[StudyMethod], spec: MetricSpec) -> list[StudyMethod]:
    """Return the methods of each board with the best first, and those without a rank last."""
    boards, sign = list(dict.fromkeys(method.board for method in methods)), spec.sign or 1

    def place(method: StudyMethod) -> tuple[int, bool, float]:
        return boards.index(method.board), method.rank is None, -sign * method.shown.value

    return sorted(methods, key=place)


def _caveats(boards: Mapping[str, Sequence[MethodRuns]], spec: MetricSpec) -> list[str]:
    """Return what is to be known of intervals of the metric on these images."""
    caveats = set()
    for board, members in boards.items():
        for method in members:
            if caveat := interval_caveat(spec, method.decided.labels):
                caveats.add(
                    f"{board}: the 95 % interval of {spec.words}: {caveat}. Those of differences"
                    " are approximate."
                )
    return sorted(caveats)


def _method(
    board: str,
    method: MethodRuns,
    study: Study,
    metric: MetricSpec,
    uses: int | None,
    rank: Rank | None,
) -> StudyMethod:
    """Return a method with its spread, cost and rank.

    `uses` is the number of stored runs that were scored on its board's test images.
    """
    rows = method.members
    clusters = image_clusters([method], study.whole_groups)
    seconds = [row.seconds_per_image for row in rows if row.seconds_per_image]
    balanced = [row.metric("balanced_accuracy") for row in rows]
    flops = [row.flop_per_image for row in rows]
    first = rows[0]
    own_axes = {**{name: first.axes.get(name) for name in DATA}, **method.axes}
    # A study without one of the axes of data, such as a split, has None for it on both sides.
    declared_runs = [
        run
        for run in study.cells
        if all(run.axes.get(name) == value for name, value in own_axes.items())
    ]
    spread_of_metric = None
    if metric.name != "accuracy":
        spread_of_metric = metric_spread(
            metric, method, method.decided.labels, clusters, study.over
        )
    return StudyMethod(
        board=board,
        method=method.name,
        axes=method.axes,
        trained_on=first.trained_on,
        runs=len(rows),
        declared=len(declared_runs),
        spread=spread(method.right, clusters, study.over),
        tested=spread_of_metric,
        balanced_accuracy=None if None in balanced else float(np.mean(np.array(balanced, float))),
        cost=float(np.mean([row.cost or 0.0 for row in rows])),
        tflop=None if None in flops else float(np.mean(np.array(flops, float))) / 1e12,
        seconds_per_image=float(np.mean(seconds)) if seconds else None,
        # Of each image, the mean over seeds and templates.
        worst_group=worst_group(
            method.decided.groups, method.right.mean(axis=(0, 1)), method.decided.clusters
        ),
        rank=rank,
        looks=uses if first.split is not None and is_test(first.split) else None,
    )


def _estimates(
    methods: Sequence[StudyMethod], differences: Mapping[str, Sequence[MethodDifference]]
) -> dict[str, Estimates]:
    """Return estimates by board: (method, None) → a value, (b, a) → the value of b minus a's."""
    boards: dict[str, Estimates] = {}
    for method in methods:
        if method.shown.interval is not None:
            value = Estimate(method.shown.value, method.shown.interval)
            boards.setdefault(method.board, {})[method.method, None] = value
    for board, pairs in differences.items():
        for pair in pairs:
            change = pair.difference
            estimate = Estimate(change.estimate, change.interval)
            boards.setdefault(board, {})[pair.b, pair.a] = estimate
    return boards


def _ranks(pairs: Sequence[MethodDifference], sign: int) -> dict[str, Rank | None]:
    """Return ranks; `sign` is 1 if larger values are better, -1 if smaller; with 0, none."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))
    better = np.zeros((len(names), len(names)), dtype=bool)
    for pair in pairs:
        a, b = names.index(pair.a), names.index(pair.b)
        winner, loser = (b, a) if sign * pair.difference.estimate > 0 else (a, b)
        better[winner, loser] = pair.different
    return dict(zip(names, ranks(better), strict=True)) if sign else {}
