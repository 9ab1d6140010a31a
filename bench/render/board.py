"""The report's leaderboards: the rows of every other leaderboard, with a key and a link each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from bench.boards.columns import in_words, metric_columns
from bench.boards.formats import boards, marks
from bench.boards.leaderboard import arrange
from bench.boards.rows import LeaderboardRow
from bench.contracts.metrics import MetricSpec
from bench.render.runs import RunData


@dataclass(frozen=True)
class Entry:
    """One result on the page.

    Attributes:
        row: the leaderboard's row.
        key: its letters in the figure.
        anchor: the id of the run's section on the page; "" where it has none.
        params: its parameters, and the settings in which it differs from others on the board.
    """

    row: LeaderboardRow
    key: str
    anchor: str
    params: str

    @property
    def marks(self) -> list[tuple[str, str]]:
        """(kind of mark, text): what tells the result apart."""
        return marks(self.row)

    @property
    def cost(self) -> float | None:
        """Evaluation equivalents per image, of a classifier its one pass; None: not known."""
        return self.row.cost

    @property
    def seconds(self) -> float | None:
        """Seconds per image; None: not known."""
        return self.row.seconds_per_image

    @property
    def partial(self) -> bool:
        """Whether it was measured on a part of the split."""
        return self.row.kind in ("subset", "incomplete")


@dataclass(frozen=True)
class Board:
    """The results on one split of one dataset, best accuracy first."""

    name: str
    above: str
    columns: list[MetricSpec]
    entries: list[Entry]

    @property
    def heads(self) -> list[str]:
        """The heads of the columns of metrics."""
        return [f"{metric.words[:1].upper()}{metric.words[1:]}, %" for metric in self.columns]


def make_boards(runs: Mapping[str, RunData], reported: Iterable[LeaderboardRow]) -> list[Board]:
    """Return the boards on which a run stands, ranked as the leaderboard ranks.

    Args:
        runs: by the id of their section on the page.
        reported: rows of reported results.
    """
    rows = [*(run.row for run in runs.values()), *reported]
    anchors = {str(run.path): anchor for anchor, run in runs.items()}
    made = []
    for title, board in boards(arrange(rows, decided=lambda path: runs[anchors[path]].decided)):
        if any(row.kind != "reported" for row in board):
            above, differs = in_words(board)
            entries = [
                Entry(row, letters(position), anchors.get(row.path or "", ""), params)
                for position, (row, params) in enumerate(zip(board, differs, strict=True))
            ]
            made.append(Board(title, above, metric_columns(board), entries))
    return made


def letters(position: int) -> str:
    """Return A, B, … Z, AA, AB, … for the positions 0, 1, … of a list."""
    text = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, len(ascii_uppercase))
        text = ascii_uppercase[rest] + text
    return text


def pareto_front(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that no other beats in both cost and accuracy, cheapest first."""
    front: list[Entry] = []
    known = [(entry.cost, entry) for entry in entries if entry.cost is not None]
    for _, entry in sorted(known, key=lambda pair: (pair[0], -pair[1].row.accuracy)):
        if not front or entry.row.accuracy > front[-1].row.accuracy:
            front.append(entry)
    return front


def comparable(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the runs in groups of the same training data, number of images and unit of cost."""
    groups: dict[tuple[tuple[str, str], int | None, bool], list[Entry]] = {}
    for entry in entries:
        if entry.row.kind in ("measured", "subset", "replayed"):
            key = (entry.row.training, entry.row.n_samples, entry.row.classifier)
            groups.setdefault(key, []).append(entry)
    return list(groups.values())
