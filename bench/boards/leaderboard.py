"""The leaderboard: stored runs, and results that others reported, ranked within their kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.boards.rows import MEASURED, REPORTED, LeaderboardRow, Rows, all_reported, run_row
from bench.discovery.loading import metric_of_runs
from bench.errors import UserError, warn_user
from bench.stats.evidence import measured
from bench.stats.many import holm, ranking, ranks
from bench.stats.measures import make_metric
from bench.stats.paired import ALPHA, mcnemar, paired_wins
from bench.store.decisions import Decisions, read_decisions
from bench.store.fields import to_json
from bench.store.folder import list_runs, read_manifest
from bench.store.runs import read_runs, with_tags

PUBLISHED_ROWS = Path("bench", "boards", "published.json")  # in a clone of the repository
RANKED = (
    f"{ranking('runs')} Tests are McNemar's exact test on the same images. Ranked together are runs"
    " on the whole split whose backbones are zero-shot, or trained on the same data; a run that is"
    " alone in this, a subset, a replay or a result that others reported has no rank."
)


def leaderboard(
    folders: Path | Sequence[Path],
    dataset: str | None = None,
    shipped: Rows = (),
    tags: Collection[str] = (),
) -> list[LeaderboardRow]:
    """Return the rows of every dataset's board, best accuracy first.

    Rows of one board share dataset, version, split and data (its fingerprint). Ranks are among runs
    of a kind: measured on the whole split, and either zero-shot or trained on the same data. A rank
    is one more than the number of runs of its kind that are significantly better, by McNemar's
    exact test on the same images, corrected for all pairs of the kind on the board (Holm, 5 %). The
    only run of its kind, subsets, replays and reported results have no rank.

    Runs and `reported.json` files at any depth below the folders are included; a run that lies in
    several of them counts once. `shipped` are rows of runs that are not here: they keep their rank
    on a board without runs that are here, and have none beside these. UserError: no folder exists
    and no row is shipped. With `tags`, all rows are of runs here that have each of them.
    """
    folders = [folders] if isinstance(folders, Path) else folders
    existing = [folder for folder in folders if folder.is_dir()]
    if not existing and not shipped:
        raise UserError(
            f"There is no folder {folders[0]}. `bench run digits` makes the first run in ./results."
        )
    if tags:
        return arrange(_stored(existing, dataset, tags))
    reported = (row for row in all_reported(existing) if dataset in (None, row.dataset))
    rows = [*_stored(existing, dataset), *reported]
    return arrange(rows, shipped)


def arrange(
    rows: Iterable[LeaderboardRow],
    shipped: Rows = (),
    decided: Callable[[str], Decisions] | None = None,
) -> list[LeaderboardRow]:
    """Return the rows by board, best first, with ranks; `decided` reads decisions in a folder."""
    rows = _placed(list(rows))
    here = {_key(row) for row in rows}
    rows += [row for row in shipped if _key(row) not in here]
    rows.sort(key=lambda row: (*row.board, -row.accuracy, row.cost or 0))
    boards = groupby(rows, key=lambda row: row.board)
    return [row for _, board in boards for row in ranked(list(board), decided or _read)]


def with_metric(rows: Rows, name: str, parameters: Mapping[str, Any]) -> list[LeaderboardRow]:
    """Return the rows with a metric of the runs that are here.

    A warning says what a run lacks. UserError: there is no such metric or parameter.
    """
    spec = metric_of_runs(name)
    make_metric(spec, parameters)
    results = []
    for row in rows:
        value = row.figure(name) if spec.in_summaries else None
        if row.path is not None and value is None:
            try:
                [(_, figure)] = measured(Path(row.path), name, parameters)
                value = None if isinstance(figure, str) else figure.value
            except UserError as error:
                warn_user(str(error))
        results.append(row.with_metric(name, value))
    return results


def _read(path: str) -> Decisions:
    folder = Path(path)
    return read_decisions(folder, read_manifest(folder))


def _stored(
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


def _placed(rows: Rows) -> list[LeaderboardRow]:
    """Place reported results, which name no version and no data, on the newest board there is."""
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


def ranked(board: Rows, decided: Callable[[str], Decisions] = _read) -> list[LeaderboardRow]:
    """Return the rows of one board with their ranks, as `leaderboard` explains them."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(board):
        if row.kind == MEASURED and row.path is not None:
            groups.setdefault(row.training, []).append(place)
    if not groups:
        return list(board)  # rows that come with the package keep their ranks
    placed: dict[int, int | None] = {}
    for places_of_group in groups.values():
        better = _significantly_better([board[place] for place in places_of_group], decided)
        placed |= zip(places_of_group, ranks(better), strict=True)
    return [row.model_copy(update={"rank": placed.get(place)}) for place, row in enumerate(board)]


def _significantly_better(rows: Rows, decided: Callable[[str], Decisions]) -> NDArray[np.bool_]:
    """Return bool [R, R]: whether row i is significantly better than row j, among all pairs.

    Decisions are read only of runs with similar accuracies: p is largest where as few images as
    possible are right in both runs. If that p is significant among all pairs (Bonferroni), so is
    the pair, and Holm's correction of the others does not depend on its p.
    """
    n = np.array([row.n_samples or 0 for row in rows])
    right = np.array([round(row.accuracy * (row.n_samples or 0)) for row in rows])
    pairs = len(rows) * (len(rows) - 1) // 2
    # Runs with the same numbers are alike here: there are few of these, and many pairs of runs.
    (of_kind, n_of_kind), kind = np.unique(np.stack([right, n]), axis=1, return_inverse=True)
    kind = kind.reshape(-1)
    both = np.maximum(0, of_kind[:, None] + of_kind - np.minimum(n_of_kind[:, None], n_of_kind))
    largest = mcnemar(of_kind[:, None] - both, (of_kind[:, None] - both).T)
    unsure = (largest * pairs > ALPHA)[kind][:, kind]
    np.fill_diagonal(unsure, False)
    better = right[:, None] > right
    needed = np.flatnonzero(unsure.any(axis=1))
    if len(needed):
        wins = paired_wins(decided(rows[place].path or "") for place in needed.tolist())
        block = np.ix_(needed, needed)
        better[block] &= ~unsure[block] | _significant(wins, unsure[block])
    return better


def _significant(wins: NDArray[np.int32], tested: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return bool [R, R]: whether McNemar's p of two runs is at most 5 % among all pairs (Holm).

    The pairs that are not `tested` have a smaller p than any that decides, so that Holm's factors
    of the tested ones are the same without them.
    """
    pairs = np.nonzero(np.triu(tested))
    significant = np.zeros(wins.shape, dtype=bool)
    significant[pairs] = holm(mcnemar(wins[pairs], wins.T[pairs])) <= ALPHA
    return significant | significant.T


def shipped_rows(dataset: str | None = None) -> list[LeaderboardRow]:
    """Return the published rows that come with the package; nothing can rank them anew."""
    text = files("bench.boards").joinpath(PUBLISHED_ROWS.name).read_text("utf-8")
    rows = [LeaderboardRow.model_validate(row) for row in json.loads(text)]
    return [row for row in rows if dataset in (None, row.dataset)]


def as_shipped(rows: Rows) -> str:
    """Return the content of the package's file for the rows of the published results."""
    return to_json([{**row.plain(), "path": None} for row in rows])


def _key(row: LeaderboardRow) -> tuple[str | int | None, ...]:
    return row.source, row.dataset, row.split, row.backbone, row.n_samples
