"""The leaderboard for a README, a spreadsheet and a web page, and a run for a paper."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from bench.boards.columns import metric_columns, row_settings, tabulate
from bench.boards.formats import assignments, boards, cost_text, notes
from bench.boards.leaderboard import RANKED, as_shipped, leaderboard
from bench.boards.rows import LeaderboardRow, run_row
from bench.boards.text import TextTable, csv_text, formatted, to_markdown
from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.store.runs import read_run


def board_tables(rows: Sequence[LeaderboardRow]) -> list[TextTable]:
    """Return one table per board; the last one says what ranks mean."""
    tables = [tabulate(board, title) for title, board in boards(rows)]
    if tables:
        tables[-1].below.append(RANKED)
    return tables


def to_csv(rows: Sequence[LeaderboardRow]) -> str:
    """Return one table of all boards, one column per field of the rows, numbers unrounded."""
    if not rows:
        return ""
    lines = []
    for row in rows:
        line = row.plain()
        low, high = line.pop("accuracy_ci95") or (None, None)
        line |= {name: assignments(line[name]) for name in ("params", "parameters")}
        lines.append({**line, "accuracy_low": low, "accuracy_high": high})
    return csv_text(lines[0], (line.values() for line in lines))


def to_latex(run: Path) -> str:
    """Return a run's figures as a table for LaTeX's `booktabs`; UserError: it is not complete."""
    stored = read_run(run)
    row = run_row(run, stored.manifest, stored.finished())
    low, high = row.shown_ci95 or (row.accuracy, row.accuracy)
    images = f"{row.n_samples or 0:,}"
    if row.n_samples != row.n_total:
        images += f" of {row.n_total or 0:,}"
    cells = {
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(row.params)}".strip(),
        "accuracy, % (95 % interval)": (
            f"{100 * row.accuracy:.1f} ({100 * low:.1f}–{100 * high:.1f})"
        ),
    }
    for metric in metric_columns([row]):
        cells[f"{metric.words}, %"] = f"{100 * (row.figure(metric.name) or 0):.1f}"
    cells |= {"evaluations per image": cost_text(row, 1), "images": images}
    head = list(cells)
    facts = "; ".join([*notes(row, []), assignments(row_settings(row)), f"run {row.run_id}"])
    table = TextTable(
        f"{row.dataset}/{row.split}",
        head,
        [list(cells.values())],
        frozenset(head[2:]),
        below=[facts],
    )
    return formatted([table], "latex")


BEGIN, END = "<!-- leaderboard: bench results render -->", "<!-- end of leaderboard -->"
PICTURE = "leaderboard.png"


def render(published: Path, readme: Path, shipped: Path | None = None) -> list[Path]:
    """Write the leaderboard into the README, its picture and the `shipped` rows; return files."""
    rows = own_boards(published)
    text = _with_table(readme, rows)
    written = [readme, *([published / PICTURE] if rows else []), *([shipped] if shipped else [])]
    with writing("The leaderboard"):
        write_atomically(readme, text)
        if rows:
            draw(rows, published / PICTURE)
        if shipped:
            write_atomically(shipped, as_shipped(leaderboard(published)))
    return written


def stale(published: Path, readme: Path, shipped: Path | None = None) -> list[str]:
    """Return what `render` would change, one line each."""
    rows = own_boards(published)
    changes = []
    if _read(readme) != _with_table(readme, rows):
        changes.append(f"{readme}: its leaderboard is not that of {published}")
    if rows and _drawn_from(published / PICTURE) != _digest(rows):
        changes.append(f"{published / PICTURE} was not drawn from these results")
    if shipped and _read(shipped) != as_shipped(leaderboard(published)):
        changes.append(f"{shipped}: its rows are not those of {published}")
    return changes


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read: {error}. This command works in a clone of the repository."
        ) from None


def own_boards(published: Path) -> list[LeaderboardRow]:
    """Return the rows of the boards on which a run of this toolkit stands."""
    rows = leaderboard(published)
    own = {r.board[:3] for r in rows if r.kind != "reported"}
    return [r for r in rows if r.board[:3] in own]


def _with_table(readme: Path, rows: Sequence[LeaderboardRow]) -> str:
    before, begin, rest = _read(readme).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} needs the lines {BEGIN!r} and {END!r} around the table.")
    return f"{before}{BEGIN}\n{to_markdown(board_tables(rows))}{END}{after}"


def _digest(rows: Sequence[LeaderboardRow]) -> str:
    shown = []
    for title, board in boards(rows):
        table = tabulate(board)
        content = {"above": table.above, "head": table.head, "cells": table.rows}
        shown.append([title, {**content, "sources": table.sources}])
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _drawn_from(picture: Path) -> str | None:
    from PIL import Image

    if not picture.is_file():
        return None
    with Image.open(picture) as image:
        return image.info.get("Source")


def draw(rows: Sequence[LeaderboardRow], file: Path) -> None:
    """Draw accuracy and its interval against evaluation equivalents per image, one panel per board.

    The metadata `Source` of the picture is the digest of its rows, so that a stale one is
    recognised.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    panels = list(boards(rows))
    figure = Figure(figsize=(6.5 * len(panels), 5), layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, board) in zip(places, panels, strict=True):
        costed = [(r.cost, r.shown_ci95, r) for r in board if r.cost and r.shown_ci95]
        for cost, (low, high), row in sorted(costed, key=lambda point: point[0]):
            value = row.accuracy
            live = row.kind == "measured"
            mark = "" if live else f" ({row.kind})"
            axes.errorbar(
                cost,
                value,
                [[max(0, value - low)], [max(0, high - value)]],
                fmt="o" if live else "s",
                markerfacecolor=None if live else "white",
                capsize=3,
                label=f"{row.backbone} · {row.strategy}{mark}",
            )
        axes.set_xscale("log")
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_minor_formatter(NullFormatter())  # they would run into each other
        axes.set_xlabel("evaluation equivalents per image; a classifier: one pass")
        axes.set_ylabel("accuracy, 95 % interval")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.savefig(file, dpi=110, metadata={"Source": _digest(rows)})
