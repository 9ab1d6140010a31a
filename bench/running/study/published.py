"""Published figures of a study's runs, as its file states them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from bench.discovery.loading import metric_specs
from bench.errors import UserError, did_you_mean
from bench.running.study.values import AxisLabels, Table, is_matched, matched_labels, tables_of
from bench.store.fields import first_problem
from bench.store.studies import Published

KEYS = ("source", "value", "metric", "images", "differs")
Figure = tuple[Mapping[str, frozenset[str]], Published]  # with the labels of its runs by axis


def read_published(
    study: Table, labels: AxisLabels, deviations: Sequence[str], rehearsal: bool
) -> list[Figure]:
    """Return the published figures of a study's file, `[published]` or several `[[published]]`.

    `labels` has the labels on each axis. `deviations` are those of the user's changes, which may
    make it a rehearsal; see `Published`. Raises UserError if a table is invalid.
    """
    only = study.get("published")
    figures: list[Figure] = []
    metrics = [name for name, metric in metric_specs().items() if metric.in_summaries]
    for table in [only] if isinstance(only, dict) else tables_of(study, "published"):
        stated = {key: value for key, value in table.items() if key in KEYS}
        axes = {key: value for key, value in table.items() if key not in KEYS}
        try:
            figure = Published.model_validate(stated)
        except ValidationError as error:
            raise UserError(f"[published]: {first_problem(error)}.") from None
        if figure.metric not in metrics:
            close = did_you_mean(figure.metric, metrics)
            raise UserError(f"[published]: no run has a metric {figure.metric!r}.{close}")
        if deviations:
            update = {"differs": [*figure.differs, *deviations], "rehearsal": rehearsal}
            figure = figure.model_copy(update=update)
        figures.append((matched_labels(axes, labels, "[published]", KEYS), figure))
    return figures


def figure_at(axes: Mapping[str, str], figures: Sequence[Figure]) -> Published | None:
    """Return the figure of the run with these labels, if any; UserError if there are several."""
    matching = [figure for labels, figure in figures if is_matched(axes, labels)]
    if len(matching) > 1:
        raise UserError(f"Several tables [[published]] match the run {', '.join(axes.values())}.")
    return matching[0] if matching else None
