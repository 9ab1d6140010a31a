"""One row per stored run and metric, as CSV or a data frame, for tables of one's own."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import JsonValue

from bench.discovery.queries import metric_specs
from bench.reports.facts import assignments
from bench.reports.run_view import RunView
from bench.store.errata import in_cell
from bench.store.folder import list_runs
from bench.store.runs import read_runs, with_tags
from bench.store.summary import Summary

Row = dict[str, JsonValue]


def flat_rows(results: Path, tags: Sequence[str] = ()) -> Iterator[Row]:
    """Yield a row for each metric of each run that has decided images, by run.

    Values and the ends of their 95 % intervals are not rounded; None: unknown. Only runs that have
    all `tags`. Raises UserError for a tag that no run has.
    """
    names = [spec.name for spec in metric_specs().values() if spec.in_summaries]
    for run in map(RunView, read_runs(with_tags(list_runs(results), tags))):
        if (summary := run.so_far) is None:
            continue
        of_run = _run_fields(run, summary)
        for name in ("accuracy", *(name for name in names if name != "accuracy")):
            if (value := summary.metrics.metric(name)) is not None:
                low, high = _interval(run, summary, name)
                yield {**of_run, "metric": name, "value": value, "low": low, "high": high}


def _interval(run: RunView, summary: Summary, name: str) -> tuple[float | None, float | None]:
    """Return the ends that tables show, valid also if a stopping rule ended the run."""
    if name == "accuracy" and run.stop is not None:
        return run.stop.interval
    ends: tuple[float, float] | None = getattr(summary.metrics, f"{name}_ci95", None)
    return ends or (None, None)


def _run_fields(run: RunView, summary: Summary) -> Row:
    manifest, identity = run.manifest, run.manifest.identity
    data, backbone, strategy = manifest.dataset, manifest.backbone, manifest.strategy
    return {
        "run_id": manifest.run_id,
        "status": summary.status,
        "dataset": data.name,
        "version": data.version,
        "split": data.split,
        "fingerprint": identity.dataset.fingerprint,
        "backbone": backbone.name,
        "trained_on": backbone.trained_on,
        "strategy": strategy.name,
        "params": assignments(strategy.params),
        "settings": assignments(run.settings),
        "seed": identity.seed,
        "images": summary.dataset.n_samples,
        "of": data.n_total,
        "cost": summary.cost.per_image(manifest.classifier),
        "flop": summary.cost.flop_per_image,
        "seconds": summary.cost.seconds,
        "errata": in_cell(run.errata),
        "created": manifest.created,
        "note": manifest.config.note,
        "tags": " ".join(manifest.config.tags) or None,
        "path": str(run.path),
    }
