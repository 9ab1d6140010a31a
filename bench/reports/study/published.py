"""The table of published figures of a study's runs, with ours beside them."""

from __future__ import annotations

from collections.abc import Sequence

from bench.discovery.loading import metric_specs
from bench.reports.facts import Column, Fact, metric_fact, metric_unit
from bench.reports.study.methods import varied_axes
from bench.reports.study.rows import StudyRow
from bench.reports.text import Table, make_table
from bench.store.studies import Published


def published_tables(study: str, rows: Sequence[StudyRow]) -> list[Table]:
    """Return a table of figures, with their sources and deviations below; [] without figures."""
    figures = [(row, row.published) for row in rows if row.published is not None]
    if not figures:
        return []
    axes = [row.axes for row, _ in figures]
    varied = varied_axes(dict.fromkeys(name for own in axes for name in own), axes)
    sources, deviations = dict[str, None](), dict[str, None]()
    for row, figure in figures:
        run = _run(row, varied)
        sources[f"Published: {figure.source}."] = None
        deviations |= {f"* {run}: {text}" if run else f"* {text}": None for text in figure.differs}
    below = [*sources, *["What differs from the publication:"] * bool(deviations), *deviations]
    columns: list[Column[tuple[StudyRow, Published]]] = [
        Column("run", lambda pair: _run(pair[0], varied) or study),
        Column("metric", lambda pair: metric_specs()[pair[1].metric].words),
        Column("published", _published),
        Column("ours", _ours),
        Column("difference", _difference),
        Column("verdict", lambda pair: _verdict(*pair)),
    ]
    shown = [c for c in columns if any(c.fact(pair).value is not None for pair in figures)]
    return [
        make_table(
            f"{study}: published and ours", shown, figures, optional=("metric", "run"), below=below
        )
    ]


def _run(row: StudyRow, varied: Sequence[str]) -> str:
    return " ".join(row.axes[name] for name in varied if name in row.axes)


def _published(pair: tuple[StudyRow, Published]) -> Fact:
    figure = pair[1]
    if figure.value is None:
        return Fact("", "none at first hand")
    return metric_fact(metric_specs()[figure.metric], figure.value)


def _ours(pair: tuple[StudyRow, Published]) -> Fact:
    row, metric = pair[0], metric_specs()[pair[1].metric]
    ends = row.accuracy_ci95 if metric.name == "accuracy" else None
    return metric_fact(metric, row.metric(metric.name), ends)


def _difference(pair: tuple[StudyRow, Published]) -> Fact:
    unit = metric_unit(metric_specs()[pair[1].metric], difference=True)
    return Fact("difference", pair[1].difference, unit)


def _verdict(row: StudyRow, figure: Published) -> str | None:
    ends, value = row.accuracy_ci95, figure.value
    if figure.rehearsal:
        return "rehearsal: not comparable"
    if ends is None or value is None or figure.metric != "accuracy":
        return None
    where = "in" if ends[0] <= value <= ends[1] else "outside"
    return f"published is {where} our interval"
