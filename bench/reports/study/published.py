"""The table of published figures of a study's runs, with ours beside them."""

from __future__ import annotations

from collections.abc import Sequence

from bench.discovery.loading import metric_specs
from bench.reports.formats import NONE
from bench.reports.study.methods import varied_axes
from bench.reports.study.rows import StudyRow
from bench.reports.text import Table
from bench.store.studies import Published


def published_tables(study: str, rows: Sequence[StudyRow]) -> list[Table]:
    """Return a table of figures, with their sources and deviations below; [] without figures."""
    figures = [(row, row.published) for row in rows if row.published is not None]
    if not figures:
        return []
    axes = [row.axes for row, _ in figures]
    varied = varied_axes(dict.fromkeys(name for own in axes for name in own), axes)
    lines, sources, deviations = [], dict[str, None](), dict[str, None]()
    for row, figure in figures:
        run = " ".join(row.axes[name] for name in varied if name in row.axes)
        lines.append([run or study, *_values(row, figure)])
        sources[f"Published: {figure.source}."] = None
        deviations |= {f"* {run}: {text}" if run else f"* {text}": None for text in figure.differs}
    below = [*sources, *["What differs from the publication:"] * bool(deviations), *deviations]
    head = ["run", "metric", "published", "ours", "95 %", "difference", "verdict"]
    shown = [n for n in range(len(head)) if any(line[n] != NONE for line in lines)]
    head, lines = [head[n] for n in shown], [[line[n] for n in shown] for line in lines]
    right, optional = frozenset({"difference"}), ("metric", "95 %", "run")
    return [Table(f"{study}: published and ours", head, lines, right, optional, below)]


def _values(row: StudyRow, figure: Published) -> list[str]:
    metric, value, ours = metric_specs()[figure.metric], figure.value, row.metric(figure.metric)
    ends = row.accuracy_ci95 if figure.metric == "accuracy" else None
    verdict = "rehearsal: not comparable" if figure.rehearsal else NONE
    if ends and value is not None and not figure.rehearsal:
        where = "in" if ends[0] <= value <= ends[1] else "outside"
        verdict = f"published is {where} our interval"
    return [
        metric.words,
        "none at first hand" if value is None else metric.shown(value),
        NONE if ours is None else metric.shown(ours),
        "–".join(map(metric.shown, ends)) if ends else NONE,
        NONE if figure.difference is None else metric.shown(figure.difference, "+"),
        verdict,
    ]
