"""The leaderboards of a report, and pairwise comparisons of the runs on each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations
from string import ascii_uppercase

import numpy as np

from bench.contracts.metrics import MetricSpec
from bench.errors import UserError
from bench.reports.figures.gallery import Picture, make_pictures
from bench.reports.formats import boards, row_labels
from bench.reports.leaderboard.columns import describe_settings, metric_columns
from bench.reports.leaderboard.ranking import rank_boards
from bench.reports.leaderboard.rows import LeaderboardRow
from bench.reports.run_view import RunView
from bench.stats.comparison import Comparison, compare_decided
from bench.stats.paired import changed_samples


@dataclass(frozen=True)
class Entry:
    """One result on the page."""

    row: LeaderboardRow
    key: str  # letters that label its point in the figure
    anchor: str  # id of the run's section on the page, or ""
    params: str  # parameters and settings that differ from others on the board

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the row, as kind → text."""
        return row_labels(self.row)

    @property
    def is_partial(self) -> bool:
        """Whether the result covers only a part of the split."""
        return self.row.kind in ("subset", "incomplete")


@dataclass(frozen=True)
class Blind:
    """A run and its blind control; `control` says how the images were destroyed."""

    seen: RunView
    control: str
    blind: RunView


def find_blind_controls(runs: Iterable[RunView]) -> list[Blind]:
    """Return the pairs of a run and its blind control among these runs."""
    identities = [(run, run.manifest.identity.plain()) for run in runs]
    return [
        Blind(seen, identity["control"], blind)
        for blind, identity in identities
        if identity.get("control") is not None
        for seen, other in identities
        if other == {name: value for name, value in identity.items() if name != "control"}
    ]


@dataclass(frozen=True)
class PageBoard:
    """The results on one split of one dataset, best accuracy first."""

    name: str
    above: str
    columns: list[MetricSpec]
    entries: list[Entry]

    @property
    def heads(self) -> list[str]:
        """Headings of the metric columns."""
        return [
            f"{metric.words[:1].upper()}{metric.words[1:]}{', %' * (metric.unit == 'share')}"
            for metric in self.columns
        ]


def make_boards(runs: Mapping[str, RunView], reported: Iterable[LeaderboardRow]) -> list[PageBoard]:
    """Return the ranked boards that have a run; `runs` is keyed by section id."""
    rows = [*(run.row for run in runs.values()), *reported]
    anchors = {str(run.path): anchor for anchor, run in runs.items()}
    page_boards = []
    for title, board in boards(rank_boards(rows, decided=lambda path: runs[anchors[path]].decided)):
        if any(row.kind != "reported" for row in board):
            above, differs = describe_settings(board)
            entries = [
                Entry(row, letter_key(position), anchors.get(row.path or "", ""), params)
                for position, (row, params) in enumerate(zip(board, differs, strict=True))
            ]
            page_boards.append(PageBoard(title, above, metric_columns(board), entries))
    return page_boards


def letter_key(position: int) -> str:
    """Return A, B, … Z, AA, AB, … for the positions 0, 1, … of a list."""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, len(ascii_uppercase))
        text = ascii_uppercase[rest] + text
    return text


def pareto_front(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that are not dominated in cost and accuracy, cheapest first."""
    front: list[Entry] = []
    priced = [(entry.row.cost, entry) for entry in entries if entry.row.cost is not None]
    for _, entry in sorted(priced, key=lambda pair: (pair[0], -pair[1].row.accuracy)):
        if not front or entry.row.accuracy > front[-1].row.accuracy:
            front.append(entry)
    return front


def group_comparable(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the runs that have the same training data, number of images and unit of cost."""
    groups: dict[tuple[tuple[str, str], int | None, bool], list[Entry]] = {}
    for entry in entries:
        if entry.row.kind in ("measured", "subset", "replayed"):
            key = (entry.row.training, entry.row.n_samples, entry.row.classifier)
            groups.setdefault(key, []).append(entry)
    return list(groups.values())


MOST_RUNS = 8  # runs of a dataset that are compared in pairs
MOST_PAIRS = 4  # pairs with the best run whose details are shown
MAX_CHANGED = 20  # images listed per pair


@dataclass(frozen=True)
class Pair:
    """The comparison of run B with run A, and their keys on the board."""

    key_a: str
    key_b: str
    comparison: Comparison
    changed: list[tuple[Picture, Picture]]  # decisions of A and B on images, without the pictures
    total: int  # number of images that are decided differently


@dataclass(frozen=True)
class PairwiseComparisons:
    """Pairwise comparisons of the best runs of one board, best first."""

    name: str
    entries: list[Entry]
    comparisons: list[list[Comparison | None]]  # row less column; None if not comparable
    pairs: list[Pair]  # the best run against each of the next ones


def compare_runs(
    boards: Sequence[PageBoard], runs: Mapping[str, RunView]
) -> list[PairwiseComparisons]:
    """Return the comparisons for each board with at least two comparable runs."""
    tables = []
    for board in boards:
        entries = [entry for entry in board.entries if entry.anchor][:MOST_RUNS]
        compared: dict[tuple[int, int], Comparison] = {}
        for row, column in permutations(range(len(entries)), 2):
            a, b = runs[entries[column].anchor], runs[entries[row].anchor]
            with suppress(UserError):  # different classes, or no image in common
                manifests, decided = (a.manifest, b.manifest), (a.decided, b.decided)
                compared[row, column] = compare_decided(manifests, decided)
        if not compared:
            continue
        size = range(len(entries))
        comparisons = [[compared.get((row, column)) for column in size] for row in size]
        pairs = [
            _pair(entries[0], entries[place], runs, compared[place, 0])
            for place in range(1, min(len(entries), MOST_PAIRS + 1))
            if (place, 0) in compared
        ]
        tables.append(PairwiseComparisons(board.name, entries, comparisons, pairs))
    return tables


def _pair(a: Entry, b: Entry, runs: Mapping[str, RunView], comparison: Comparison) -> Pair:
    run_a, run_b = runs[a.anchor], runs[b.anchor]
    rows_a, rows_b = changed_samples(run_a.decided, run_b.decided)
    # Images that one run alone gets right come before those that both get wrong.
    both_wrong = ~(run_a.decided.correct[rows_a] | run_b.decided.correct[rows_b])
    order = np.argsort(both_wrong, kind="stable")[:MAX_CHANGED]
    of_a, of_b = (
        make_pictures(run, rows[order], lambda _: (None, False))
        for run, rows in ((run_a, rows_a), (run_b, rows_b))
    )
    changed = list(zip(of_a, of_b, strict=True))
    return Pair(a.key, b.key, comparison, changed, len(rows_a))
