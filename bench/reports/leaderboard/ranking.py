"""Rank stored runs on leaderboards, beside published runs and results that others reported."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.strategy import Bools, Floats
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_of_runs
from bench.errors import UserError, warn_user
from bench.reports.leaderboard.rows import (
    MEASURED,
    REPLAYED,
    REPORTED,
    WRONG,
    Rows,
    all_reported,
    board_row,
)
from bench.reports.leaderboard.rows import LeaderboardRow as Row
from bench.reports.run_metric import measured_view
from bench.reports.run_view import RunView
from bench.stats.inference.difference_tests import Rank, holm, paired_on, ranks
from bench.stats.inference.paired import ALPHA, mcnemar, paired_wins
from bench.stats.metrics.metric_values import make_metric
from bench.store.folder import list_runs
from bench.store.formats.decisions import shared_rows
from bench.store.runs import check_stored, read_runs, with_tags


def leaderboard(
    folders: Path | Sequence[Path], dataset: str | None = None, tags: Collection[str] = ()
) -> list[Row]:
    """Return the rows of all boards, grouped by board, best accuracy first.

    Rows of one board have the same dataset, version, split and data (by fingerprint). The ranks are
    those of `add_ranks`. `folders` are searched for runs and `reported.json` files at any depth; a
    run is included once, and a published one again if it was also made here. With `tags`, only runs
    that have all of them are included, without reported results. Raises UserError if no folder
    exists, or if there is no such dataset or tag.
    """
    folders = [folders] if isinstance(folders, Path) else folders
    existing = [folder for folder in folders if folder.is_dir()]
    if not existing:
        raise UserError(
            f"There is no folder {folders[0]}. `bench run digits` makes the first run in ./results."
        )
    paths = with_tags([path for folder in existing for path in list_runs(folder)], tags)
    runs = [*map(RunView, read_runs(paths))]
    reported = [] if tags else list(all_reported(existing))
    datasets = {run.manifest.dataset.name for run in runs} | {row.dataset for row in reported}
    if dataset is not None:
        check_stored("dataset", [dataset], {*datasets, *load_plugins().datasets.by_name()})
        runs = [run for run in runs if run.manifest.dataset.name == dataset]
        reported = [row for row in reported if row.dataset == dataset]
    return rank_boards([*_stored_rows(runs), *reported])


def rank_boards(rows: Iterable[Row]) -> list[Row]:
    """Return the rows grouped by board, best accuracy first, with ranks; see `add_ranks`."""
    rows = _assign_boards(list(rows))
    rows.sort(key=lambda row: (*row.board, -row.accuracy, row.cost or 0))
    boards = groupby(rows, key=lambda row: row.board)
    return [row for _, board in boards for row in add_ranks(list(board))]


def main_rows(rows: Rows, aside: bool = False) -> list[Row]:
    """Return the rows of boards with stored runs, if there are any such boards.

    Replays, controls and corrupted runs are left out unless `aside`, or a board has nothing else.
    """
    boards = [[*board] for _, board in groupby(rows, key=lambda row: row.board)]
    main = [[row for row in board if aside or not row.aside] or board for board in boards]
    own = [board for board in main if any(row.kind != REPORTED for row in board)]
    return [row for board in own or main for row in board]


def with_metric(rows: Rows, name: str, parameters: Mapping[str, Any]) -> list[Row]:
    """Return the rows with another metric, computed from the stored runs (UserError).

    A warning is issued for each run that lacks what the metric needs.
    """
    spec = metric_of_runs(name)
    make_metric(spec, parameters)
    results = []
    for row in rows:
        value = row.metric(name) if spec.in_summaries else None
        if row.path is not None and value is None:
            try:
                measured = measured_view(row.run, name, parameters).measured
                value = None if measured is None else measured.value
            except UserError as error:
                warn_user(str(error))
        results.append(row.model_copy(update={name: value}))
    return results


def _stored_rows(runs: Iterable[RunView]) -> Iterator[Row]:
    seen = set()
    for run in runs:
        if run.stored.summary is None or run.so_far is None:
            continue
        row = board_row(run)
        key = (row.run_id, row.n_samples, row.published)
        if key not in seen:
            seen.add(key)
            yield row


def _assign_boards(rows: Rows) -> list[Row]:
    """Assign reported results, which state no version or data, to the newest matching board."""
    newest: dict[tuple[str, str], tuple[int, str]] = {}
    for row in rows:
        if row.kind != REPORTED:
            key, (_, version, _, data) = (row.dataset, row.split), row.board
            newest[key] = max(newest.get(key, (0, "")), (version, data))
    placed = []
    for row in rows:
        board = newest.get((row.dataset, row.split)) if row.kind == REPORTED else None
        if board:
            place = {"version": board[0] or None, "fingerprint": board[1] or None}
            row = row.model_copy(update=place)
        placed.append(row)
    return placed


def add_ranks(board: Rows) -> list[Row]:
    """Return the rows of one board with their ranks.

    Rivals are complete runs on the whole split whose backbones are zero-shot or trained on the same
    data: the published ones if there are any, which no other run can move then. A rank counts the
    rivals that are significantly better or worse, by McNemar's exact test on the same images (of
    items, see `paired_on`), with Holm's correction for all pairs (5 %). Another complete run or a
    replay gets the rank that it would have if it alone were added. All other runs have no rank, but
    their difference from the first rival of the board on the images of both.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(board):
        if row.kind in (MEASURED, REPLAYED) and row.path is not None:
            groups.setdefault(row.training, []).append(index)
    rank_of: dict[int, Rank | None] = {}
    for indices in groups.values():
        measured = [index for index in indices if board[index].kind == MEASURED]
        rivals = [index for index in measured if board[index].published] or measured
        guests = [index for index in indices if index not in rivals]
        members = [*rivals, *guests]
        ranges = _ranks([board[index] for index in members], len(rivals))
        rank_of |= zip(members, ranges, strict=True)
    ranked = [row.model_copy(update={"rank": rank_of.get(i)}) for i, row in enumerate(board)]
    first = next((row for row in ranked if row.kind == MEASURED and row.path), None)
    return [_with_difference(row, first) for row in ranked]


def _with_difference(row: Row, first: Row | None) -> Row:
    """Return a row that is no rival with its difference from the first one on shared images."""
    ranked = row.rank is not None or row.kind in (MEASURED, WRONG)
    if first is None or ranked or row.path is None:
        return row
    a, b = first.run.decisions(top=False), row.run.decisions(top=False)
    rows_a, rows_b = shared_rows(a, b)
    if not len(rows_a):
        return row
    return row.model_copy(update={"against_first": paired_on(a, b, rows_a, rows_b)})


def _ranks(rows: Rows, rivals: int) -> list[Rank | None]:
    """Return the ranks of the first `rivals` rows, and of each other row if it alone were added."""
    better, p = compare_pairs(rows, rivals)
    between = np.sort(p[np.triu_indices(rivals, 1)])  # one p-value per pair of rivals
    results = ranks(better[:rivals, :rivals] & _rejected(p[:rivals, :rivals], between))
    for guest in range(rivals, len(rows)):
        family = np.ix_([*range(rivals), guest], [*range(rivals), guest])
        tested = np.concatenate([between, p[guest, :rivals]])
        results.append(ranks(better[family] & _rejected(p[family], tested))[-1])
    return results


def _rejected(p: Floats, tested: Floats) -> Bools:
    """Return which of the p-values, any shape, Holm's method rejects in the family `tested`."""
    rejected = tested[holm(tested) <= ALPHA]
    return p <= np.max(rejected, initial=-1.0)  # none if it rejects none


def compare_pairs(rows: Rows, rivals: int) -> tuple[Bools, Floats]:
    """Return whether row i is better than row j, bool [R, R], and the p-values, float64 [R, R].

    Each pair of the first `rivals` rows is tested, and each of them with each other row. Decisions
    are read only of runs with similar accuracies. The p-value of a pair is largest if as few images
    as possible are right in both runs. If even this bound is significant after Bonferroni's
    correction, it stands for the p-value: Holm's procedure rejects the pair either way, and its
    result for the other pairs is the same. Where items are about the same images, no such bound
    holds, and each pair is tested.
    """
    n = np.array([row.n_samples or 0 for row in rows])
    right = np.array([round(row.accuracy * (row.n_samples or 0)) for row in rows])  # images
    family = min(rivals + 1, len(rows))  # rows that are corrected together: rivals and one other
    pairs = family * (family - 1) // 2
    # The bound depends only on these two counts, which many runs have in common.
    (counts, sizes), kind = np.unique(np.stack([right, n]), axis=1, return_inverse=True)
    kind = kind.reshape(-1)  # place of each row's two counts in `counts` and `sizes`
    # With n images, at least a + b - n are right in both runs.
    both = np.maximum(0, counts[:, None] + counts - np.minimum(sizes[:, None], sizes))
    wins = counts[:, None] - both
    p = mcnemar(wins, wins.T)[kind][:, kind]
    unsure = p * pairs > ALPHA
    np.fill_diagonal(unsure, False)
    unsure[rivals:, rivals:] = False
    needed = np.flatnonzero(unsure.any(axis=1))
    if len(needed):
        wins = paired_wins(rows[index].run.decisions(top=False) for index in needed.tolist())
        block = np.ix_(needed, needed)
        p[block] = np.where(unsure[block], mcnemar(wins, wins.T), p[block])
    return right[:, None] > right, _over_images(rows, p)


def _over_images(rows: Rows, p: Floats) -> Floats:
    """Return the p-values of tests over images, if items are about the same ones, or else `p`."""
    of_items = any(row.run.manifest.items is not None for row in rows)
    decided = [row.run.decisions(top=False) for row in rows] if of_items else []
    if any(of_run.clusters is not None for of_run in decided):
        for (i, a), (j, b) in combinations(enumerate(decided), 2):
            tested = paired_on(a, b, *shared_rows(a, b)).difference
            p[i, j] = p[j, i] = 1.0 if tested.p is None else tested.p
    return p
