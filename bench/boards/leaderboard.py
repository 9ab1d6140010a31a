"""Rank stored runs on leaderboards, beside published rows and results that others reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.boards.measured import measure_run
from bench.boards.rows import MEASURED, REPORTED, LeaderboardRow, Rows, all_reported, run_row
from bench.discovery.loading import metric_of_runs
from bench.errors import UserError, warn_user
from bench.stats.many import holm, ranking, ranks
from bench.stats.measures import make_metric
from bench.stats.paired import ALPHA, mcnemar, paired_wins
from bench.store.decisions import Decisions, read_decisions
from bench.store.fields import to_json
from bench.store.folder import list_runs, read_manifest
from bench.store.runs import read_runs, with_tags

PUBLISHED_ROWS = Path("bench", "boards", "published.json")  # in a clone of the repository
RANKED = (
    f"{ranking('runs')} Differences are tested by McNemar's exact test on the same images. Runs on"
    " the whole split are ranked together if their backbones are zero-shot, or trained on the same"
    " data. A run without another to rank with, a subset, a replay and a result reported by others"
    " have no rank."
)


def leaderboard(
    folders: Path | Sequence[Path],
    dataset: str | None = None,
    shipped: Rows = (),
    tags: Collection[str] = (),
) -> list[LeaderboardRow]:
    """Return the rows of all boards, grouped by board, best accuracy first.

    Rows of one board have the same dataset, version, split and data (by fingerprint). Runs are
    ranked if they were measured on the whole split, among those that are zero-shot or among those
    trained on the same data. A rank is one more than the number of these runs that are
    significantly better by McNemar's exact test on the same images, with Holm's correction for all
    pairs (5 %). Subsets, replays, reported results, and a run with no other to rank with have none.

    `folders` are searched for runs and `reported.json` files at any depth; a run is included once.
    `shipped` are rows of published runs that are not there. They keep their ranks on boards without
    other runs, and have no rank elsewhere. With `tags`, only runs that have all of them are
    included, without reported results and `shipped`. Raises UserError if no folder exists, and
    there are no `shipped` rows.
    """
    folders = [folders] if isinstance(folders, Path) else folders
    existing = [folder for folder in folders if folder.is_dir()]
    if not existing and not shipped:
        raise UserError(
            f"There is no folder {folders[0]}. `bench run digits` makes the first run in ./results."
        )
    if tags:
        return rank_boards(_stored_rows(existing, dataset, tags))
    reported = (row for row in all_reported(existing) if dataset in (None, row.dataset))
    rows = [*_stored_rows(existing, dataset), *reported]
    return rank_boards(rows, shipped)


def rank_boards(
    rows: Iterable[LeaderboardRow],
    shipped: Rows = (),
    decided: Callable[[str], Decisions] | None = None,
) -> list[LeaderboardRow]:
    """Return the rows grouped by board, best accuracy first, with ranks; see `leaderboard`.

    `decided` returns the decisions of the run in a folder; None: they are read from there.
    """
    rows = _assign_boards(list(rows))
    here = {_key(row) for row in rows}
    rows += [row for row in shipped if _key(row) not in here]
    rows.sort(key=lambda row: (*row.board, -row.accuracy, row.cost or 0))
    boards = groupby(rows, key=lambda row: row.board)
    return [row for _, board in boards for row in add_ranks(list(board), decided or _read)]


def with_metric(rows: Rows, name: str, parameters: Mapping[str, Any]) -> list[LeaderboardRow]:
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
                [(_, result)] = measure_run(Path(row.path), name, parameters)
                value = None if isinstance(result, str) else result.value
            except UserError as error:
                warn_user(str(error))
        results.append(row.with_metric(name, value))
    return results


def _read(path: str) -> Decisions:
    folder = Path(path)
    return read_decisions(folder, read_manifest(folder))


def _stored_rows(
    folders: Sequence[Path], dataset: str | None, tags: Collection[str] = ()
) -> Iterator[LeaderboardRow]:
    seen = set()
    for run in read_runs(p for folder in folders for p in with_tags(list_runs(folder), tags)):
        if run.summary is None or dataset not in (None, run.manifest.dataset.name):
            continue
        row = run_row(run.path, run.manifest, run.summary)
        key = (row.run_id, row.n_samples)
        if key not in seen:
            seen.add(key)
            yield row


def _assign_boards(rows: Rows) -> list[LeaderboardRow]:
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


def add_ranks(board: Rows, decided: Callable[[str], Decisions] = _read) -> list[LeaderboardRow]:
    """Return the rows of one board with their ranks, as explained in `leaderboard`."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(board):
        if row.kind == MEASURED and row.path is not None:
            groups.setdefault(row.training, []).append(index)
    if not groups:
        return list(board)  # published rows keep their ranks
    rank_of: dict[int, int | None] = {}
    for indices in groups.values():
        better = _significantly_better([board[index] for index in indices], decided)
        rank_of |= zip(indices, ranks(better), strict=True)
    return [row.model_copy(update={"rank": rank_of.get(index)}) for index, row in enumerate(board)]


def _significantly_better(rows: Rows, decided: Callable[[str], Decisions]) -> NDArray[np.bool_]:
    """Return whether row i is significantly better than row j, bool [R, R], by Holm over all pairs.

    Decisions are read only of runs with similar accuracies. The p-value of a pair is largest if as
    few images as possible are right in both runs. If even this bound is significant after
    Bonferroni's correction, Holm's procedure rejects the pair as well, and its result for the other
    pairs is the same without it.
    """
    n = np.array([row.n_samples or 0 for row in rows])
    right = np.array([round(row.accuracy * (row.n_samples or 0)) for row in rows])
    pairs = len(rows) * (len(rows) - 1) // 2
    # The bound depends only on these two counts, which many runs have in common.
    (counts, sizes), kind = np.unique(np.stack([right, n]), axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    both = np.maximum(0, counts[:, None] + counts - np.minimum(sizes[:, None], sizes))
    bound = mcnemar(counts[:, None] - both, (counts[:, None] - both).T)
    unsure = (bound * pairs > ALPHA)[kind][:, kind]
    better = right[:, None] > right
    np.fill_diagonal(unsure, False)
    needed = np.flatnonzero(unsure.any(axis=1))
    if len(needed):
        wins = paired_wins(decided(rows[index].path or "") for index in needed.tolist())
        block = np.ix_(needed, needed)
        tested = np.nonzero(np.triu(unsure[block]))
        significant = ~unsure[block]
        significant[tested] = holm(mcnemar(wins[tested], wins.T[tested])) <= ALPHA
        better[block] &= significant | significant.T
    return better


def shipped_rows(dataset: str | None = None) -> list[LeaderboardRow]:
    """Return the published rows that come with the package, with the ranks they have there."""
    text = files("bench.boards").joinpath(PUBLISHED_ROWS.name).read_text("utf-8")
    rows = [LeaderboardRow.model_validate(row) for row in json.loads(text)]
    return [row for row in rows if dataset in (None, row.dataset)]


def shipped_json(rows: Rows) -> str:
    """Return rows of published results as the JSON file that comes with the package."""
    return to_json([{**row.plain(), "path": None} for row in rows])


def _key(row: LeaderboardRow) -> tuple[str | int | None, ...]:
    """Return what identifies a result, whether its run is stored or only its published row."""
    return row.source, row.dataset, row.split, row.backbone, row.n_samples
