"""Export the leaderboard as Markdown, CSV, HTML and a plot, and a run as a LaTeX table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from bench.boards.columns import metric_columns, row_settings, tabulate
from bench.boards.formats import assignments, boards, cost_text, label_texts, percent_text
from bench.boards.leaderboard import RANKED, leaderboard, shipped_json
from bench.boards.rows import LeaderboardRow, run_row
from bench.boards.text import TextTable, csv_text, format_tables, to_markdown
from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.store.runs import read_run


def board_tables(rows: Sequence[LeaderboardRow]) -> list[TextTable]:
    """Return one table per board; below the last one, ranks are explained."""
    tables = [tabulate(board, title) for title, board in boards(rows)]
    if tables:
        tables[-1].below.append(RANKED)
    return tables


def to_csv(rows: Sequence[LeaderboardRow]) -> str:
    """Return all boards as one CSV table, with a column per field and numbers not rounded."""
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
    """Return the metrics of a complete run as a LaTeX table, which needs the package `booktabs`."""
    stored = read_run(run)
    row = run_row(run, stored.manifest, stored.require_summary())
    interval = row.shown_ci95 or (row.accuracy, row.accuracy)
    images = f"{row.n_samples or 0:,}"
    if row.n_samples != row.n_total:
        images += f" of {row.n_total or 0:,}"
    cells = {
        "backbone": row.backbone,
        "strategy": f"{row.strategy} {assignments(row.params)}".strip(),
        "accuracy, % (95 % interval)": percent_text(row.accuracy, interval),
    }
    for metric in metric_columns([row]):
        cells[f"{metric.words}, %"] = f"{100 * (row.metric(metric.name) or 0):.1f}"
    cells |= {"evaluations per image": cost_text(row, 1), "images": images}
    head = list(cells)
    facts = "; ".join([*label_texts(row, []), assignments(row_settings(row)), f"run {row.run_id}"])
    table = TextTable(
        f"{row.dataset}/{row.split}",
        head,
        [list(cells.values())],
        frozenset(head[2:]),
        below=[facts],
    )
    return format_tables([table], "latex")


# Lines around the table in a README.
BEGIN, END = "<!-- leaderboard: bench results render -->", "<!-- end of leaderboard -->"
PICTURE = "leaderboard.png"


def render(published: Path, readme: Path, shipped: Path | None = None) -> list[Path]:
    """Write the leaderboard of the published results, and return the written files (UserError).

    In `readme`, what is between the lines `BEGIN` and `END` is replaced. `shipped` is the JSON file
    of the rows that come with the package; None: not written.
    """
    rows = own_boards(published)
    texts = _texts(published, rows, readme, shipped)
    with writing("The leaderboard"):
        for file, text in texts.items():
            write_atomically(file, text)
        if rows:
            draw(rows, published / PICTURE)
    return [*texts, *([published / PICTURE] if rows else [])]


def find_stale(published: Path, readme: Path, shipped: Path | None = None) -> list[str]:
    """Return the files that `render` would change, as one sentence each."""
    rows = own_boards(published)
    changes = [
        f"{file} does not show the results in {published}"
        for file, text in _texts(published, rows, readme, shipped).items()
        if _read(file) != text
    ]
    if rows and _read_digest(published / PICTURE) != _compute_digest(rows):
        changes.append(f"{published / PICTURE} was not drawn from these results")
    return changes


def _texts(
    published: Path, rows: Sequence[LeaderboardRow], readme: Path, shipped: Path | None
) -> dict[Path, str]:
    texts = {readme: _with_table(readme, rows)}
    if shipped:
        texts[shipped] = shipped_json(leaderboard(published))
    return texts


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read: {error}. This command works in a clone of the repository."
        ) from None


def own_boards(published: Path) -> list[LeaderboardRow]:
    """Return the rows of the boards that have a run of this toolkit, not only reported results."""
    rows = leaderboard(published)
    own = {r.board[:3] for r in rows if r.kind != "reported"}
    return [r for r in rows if r.board[:3] in own]


def _with_table(readme: Path, rows: Sequence[LeaderboardRow]) -> str:
    before, begin, rest = _read(readme).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} needs the lines {BEGIN!r} and {END!r} around the table.")
    return f"{before}{BEGIN}\n{to_markdown(board_tables(rows))}{END}{after}"


def _compute_digest(rows: Sequence[LeaderboardRow]) -> str:
    shown = []
    for title, board in boards(rows):
        table = tabulate(board)
        content = {"above": table.above, "head": table.head, "cells": table.rows}
        shown.append([title, {**content, "sources": table.sources}])
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _read_digest(picture: Path) -> str | None:
    from PIL import Image

    if not picture.is_file():
        return None
    with Image.open(picture) as image:
        return image.info.get("Source")


def draw(rows: Sequence[LeaderboardRow], file: Path) -> None:
    """Plot accuracy with its interval against evaluation equivalents per image, a panel per board.

    The digest of the rows is in the picture's metadata, so that `find_stale` can compare it.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    panels = list(boards(rows))
    figure = Figure(figsize=(6.5 * len(panels), 5), layout="constrained")
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, board) in zip(columns, panels, strict=True):
        costed = [(r.cost, r.shown_ci95, r) for r in board if r.cost and r.shown_ci95]
        for cost, (low, high), row in sorted(costed, key=lambda point: point[0]):
            value = row.accuracy
            live = row.kind == "measured"
            suffix = "" if live else f" ({row.kind})"
            axes.errorbar(
                cost,
                value,
                [[max(0, value - low)], [max(0, high - value)]],
                fmt="o" if live else "s",
                markerfacecolor=None if live else "white",
                capsize=3,
                label=f"{row.backbone} · {row.strategy}{suffix}",
            )
        axes.set_xscale("log")
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_minor_formatter(NullFormatter())  # minor labels would overlap
        axes.set_xlabel("evaluation equivalents per image; a classifier: one pass")
        axes.set_ylabel("accuracy, 95 % interval")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    figure.savefig(file, dpi=110, metadata={"Source": _compute_digest(rows)})
