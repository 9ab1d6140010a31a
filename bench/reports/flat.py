"""One row per stored run and metric, for CSV files and data frames."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from bench.discovery.queries import metric_specs
from bench.reports.rows import RunRow
from bench.reports.run_view import RunView
from bench.store.folder import list_runs
from bench.store.runs import read_runs, with_tags

FlatRow = dict[str, JsonValue]
ACCURACY_ENDS = ("anytime_low", "anytime_high", "accuracy_low", "accuracy_high")


def flat_rows(results: Path, tags: Sequence[str] = ()) -> Iterator[FlatRow]:
    """Yield a row for each metric of each run that has decided images and all `tags`.

    A row has the fields of `RunRow`, the seed, and the metric's value with the ends of the 95 %
    interval that tables show, not rounded; None: unknown. UserError for a tag that no run has.
    """
    specs = metric_specs()
    names = ["accuracy", *(n for n in specs if specs[n].in_summaries and n != "accuracy")]
    for run in map(RunView, read_runs(with_tags(list_runs(results), tags))):
        if run.so_far is None:
            continue
        row = RunRow.of(run)
        left_out = {*names, *ACCURACY_ENDS}
        of_run = {name: value for name, value in row.cells().items() if name not in left_out}
        of_run["seed"] = run.manifest.identity.seed
        for name in names:
            if (value := row.metric(name)) is not None:
                ends = getattr(run.summary.metrics, f"{name}_ci95", None)
                low, high = (row.shown_ci95 if name == "accuracy" else ends) or (None, None)
                yield {**of_run, "metric": name, "value": value, "low": low, "high": high}
