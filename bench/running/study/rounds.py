"""Rounds of a study with a stopping rule: which images each scores, and which methods remain."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.contracts.strategy import Floats
from bench.running.study.file import DeclaredStudy
from bench.running.study.values import Entries
from bench.stats.sequential.betting import Standings, Stop, accuracy_anytime, standings
from bench.store.folder import read_manifest
from bench.store.formats.decisions import read_decisions
from bench.store.studies import BoardStanding, MethodStanding

DATA = ("dataset", "split", "corrupt")  # axes that select the images
OVER = ("seed", "template")  # axes whose runs are pooled into one method
Methods = Mapping[str, Sequence[int]]  # method → indices of its cells


def boards_of(declared: DeclaredStudy) -> dict[str, dict[str, list[int]]]:
    """Return the indices of the cells by dataset and method.

    Runs that differ only in seed or template are one method. Its result is their mean.
    """
    apart = [name for name in declared.axes if name not in (*DATA, *OVER)]
    varied = [n for n in apart if len({cell.axes.get(n) for cell in declared.cells}) > 1] or apart
    boards: dict[str, dict[str, list[int]]] = {}
    for place, cell in enumerate(declared.cells):
        board = "/".join(cell.axes[name] for name in DATA if name in cell.axes)
        method = " ".join(cell.axes[name] for name in varied if name in cell.axes)
        boards.setdefault(board, {}).setdefault(method or "the method", []).append(place)
    return boards


def still_open(methods: Methods, standing: BoardStanding | None) -> list[str]:
    """Return the methods that score the next round: all of them before the first standing."""
    if standing is None:
        return list(methods)
    verdicts = {method.method: method.verdict for method in standing.methods}
    return [method for method in methods if verdicts[method] == "open"]


def next_round(n: int, growth: float, total: int) -> int:
    """Return the number of images per method after the next round, at most `total`."""
    return min(total, max(n + 1, round(n * growth)))


def board_standing(
    board: str,
    methods: Methods,
    folders: Mapping[int, Path],
    order: Sequence[str],
    n: int,
    entries: Entries,
) -> BoardStanding:
    """Return the result of all rounds so far on one dataset.

    `folders` maps the index of a cell to its run. The last round scored the first `n` images of the
    split in random `order`.
    """
    assert entries.stop is not None
    results: dict[str, Floats] = {}
    for method, places in methods.items():
        runs = [read_decisions(folders[p], read_manifest(folders[p])) for p in places]
        columns = [run.right_in(order[:n]) for run in runs]
        shortest = min(map(len, columns))
        results[method] = np.mean([column[:shortest] for column in columns], axis=0)
    if len(results) == 1:
        shown = Standings({}, (), next(iter(results)))
    else:
        shown = standings(results, entries.stop, entries.margin, entries.strict)
    return BoardStanding(
        board=board,
        decided=shown.decided,
        images=min(n, len(order)),
        total=len(order),
        methods=[
            MethodStanding(
                method=method,
                verdict=_verdict(method, shown, entries.stop),
                images=len(right),
                shown_after=shown.out.get(method),
                p=shown.p[method] if method in shown.out else None,
                accuracy=float(right.mean()),
                anytime_ci95=accuracy_anytime(right),
            )
            for method, right in sorted(
                results.items(),
                key=lambda item: (entries.stop == "best" and -len(item[1]), -item[1].mean()),
            )
        ],
        unresolved=list(shown.unresolved),
    )


def _verdict(method: str, shown: Standings, stop: Stop) -> str:
    if method in shown.open:
        return "open"
    if stop == "ranked":
        return "ranked"
    return "best" if method == shown.leader else "left"
