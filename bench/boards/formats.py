"""The leaderboard's rows as text: for a terminal, a README, a spreadsheet, a web page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from bench.boards.text import csv_cell, html, markdown
from bench.contracts.training import provenance

HEAD = (
    "rank",
    "accuracy (95 %)",
    "n",
    "evals",
    "s",
    "backbone",
    "strategy",
    "what",
)
RIGHT = {"rank", "n", "evals", "s"}  # evaluation equivalents and seconds per image


Row = Mapping[str, Any]


def boards(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield each board's title and its rows; rows of a board follow each other."""
    data: dict[Any, set[str | None]] = {}  # fingerprints under one title
    for row in rows:
        data.setdefault(_name(row), set()).add(row["fingerprint"])
    for (name, fingerprint), group in groupby(rows, key=lambda r: (_name(r), r["fingerprint"])):
        several = len(data[name]) > 1 and fingerprint is not None
        yield name + (f", data {fingerprint[:8]}" if several else ""), list(group)


def _name(row: Row) -> str:
    version = f", version {row['version']}" if row["version"] else ""
    return f"{row['dataset']}/{row['split']}{version}"


def lines(board: Sequence[Row]) -> tuple[list[list[str]], list[str]]:
    """Return a board's lines in the order of `HEAD`, and the sources that they number."""
    sources: list[str] = []
    return [_line(row, sources) for row in board], sources


def _line(row: Row, sources: list[str]) -> list[str]:
    interval, evaluations, n = (
        row["accuracy_ci95"],
        row["evaluation_equivalents_per_image"],
        row["n_samples"],
    )
    each = row["seconds"] / n if row["seconds"] and n else None
    return [
        "–" if row["rank"] is None else str(row["rank"]),
        f"{row['accuracy']:.4f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else ""),
        "–" if n is None else f"{n:,}",
        "–" if evaluations is None else f"{evaluations:,.0f}",
        "–" if each is None else f"{each:.3g}",
        row["backbone"],
        f"{row['strategy']} {assignments(row['params'])}".strip(),
        what(row, sources),
    ]


def what(row: Row, sources: list[str]) -> str:
    """Return what marks a row, as one text; see `notes`."""
    return ", ".join(notes(row, sources))


def notes(row: Row, sources: list[str]) -> list[str]:
    """Return what marks a row; a reported one also with the number of its source."""
    texts = [text for _, text in marks(row)]
    if row["kind"] == "reported":
        if row["source"] not in sources:
            sources.append(row["source"])
        texts[-1] += f" ({sources.index(row['source']) + 1})"
    return texts


def marks(row: Row) -> list[tuple[str, str]]:
    """Return what tells a row apart, as (kind of mark, text)."""
    found = []
    if row["kind"] == "subset":
        found.append(("subset", f"subset of {row['n_total']:,}"))
        if row["replayed_from"]:
            found.append(("replayed", "replayed"))
    elif row["kind"] != "measured":
        found.append((row["kind"], row["kind"]))
    found.append(("trained" if row["trained_on"] else "zero-shot", provenance(row["trained_on"])))
    found += [("draws", text) for text in drawn(row["draw_plan"])]
    if row["cost_timed"]:
        found.append(("timed", "cost timed"))
    if row["failed_samples"]:
        found.append(("failed", f"{row['failed_samples']:,} failed"))
    return found


def drawn(draw_plan: str | None) -> list[str]:
    """Return how a table marks draws that are not the usual ones: a list of one, or of none."""
    return [] if draw_plan in (None, "grid") else [f"draws {draw_plan}"]


def assignments(params: Mapping[str, Any]) -> str:
    """Return parameters as `--set` takes them: samples=5,50 keep=3,1."""
    return " ".join(
        f"{k}={','.join(map(str, v)) if isinstance(v, list | tuple) else v}"
        for k, v in params.items()
        if v is not None
    )


def to_markdown(rows: Sequence[Row]) -> str:
    """Return a Markdown table a board."""
    text = []
    for title, board in boards(rows):
        cells, sources = lines(board)
        text += [f"**{markdown(title)}**", "", _pipes(HEAD)]
        text += [_pipes(["--:" if name in RIGHT else "---" for name in HEAD])]
        text += [_pipes([markdown(cell) for cell in line]) for line in cells]
        text += ["", *(f"({n}) {markdown(source)}  " for n, source in enumerate(sources, start=1))]
        text += [""] if sources else []
    return "\n".join(text)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def to_csv(rows: Sequence[Row]) -> str:
    """Return one table of all boards, every field of the rows a column, numbers unrounded."""
    out = io.StringIO()
    if rows:
        names = [*rows[0], "accuracy_low", "accuracy_high"]
        names.remove("accuracy_ci95")
        writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            low, high = row["accuracy_ci95"] or (None, None)
            params = assignments(row["params"])
            line = {**row, "params": params, "accuracy_low": low, "accuracy_high": high}
            writer.writerow({name: csv_cell(value) for name, value in line.items()})
    return out.getvalue()


def to_html(rows: Sequence[Row]) -> str:
    """Return a page that needs nothing else."""
    text = [_PAGE]
    for title, board in boards(rows):
        body, sources = lines(board)
        head = "".join(f"<th>{html(name)}</th>" for name in HEAD)
        text += [f"<h2>{html(title)}</h2>", f"<table><thead><tr>{head}</tr></thead><tbody>"]
        for line in body:
            cells = (
                f'<td class="{"right" if name in RIGHT else "left"}">{html(cell)}</td>'
                for name, cell in zip(HEAD, line, strict=True)
            )
            text.append(f"<tr>{''.join(cells)}</tr>")
        text.append("</tbody></table>")
        text += [f"<p>({n}) {html(source)}</p>" for n, source in enumerate(sources, start=1)]
    return "\n".join([*text, "</body></html>", ""])


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Leaderboard</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
.right { text-align: right; font-variant-numeric: tabular-nums }
</style></head><body><h1>Leaderboard</h1>
<p>Runs of one kind (zero-shot, or trained on the same data) that do not differ significantly on
the same images (exact McNemar test, 5 %) share a rank. Subsets, replays and reported
results have none.</p>"""
