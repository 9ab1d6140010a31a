"""`bench show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.cli.output import print_json
from bench.errors import UserError
from bench.store.documents import Manifest
from bench.store.folder import find_run, read_manifest, read_summary


@click.command()
@click.argument("run")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--pictures", is_flag=True, help="Draw confusion matrix and example images again.")
@click.option(
    "--statistics",
    "more",
    is_flag=True,
    help="Also each class, stability, and other seeds.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(run: str, results: str, pictures: bool, more: bool, as_json: bool) -> None:
    """Show RUN: a run id, or a run's folder. An incomplete run has the metrics so far."""
    path = find_run(run, results)
    if pictures:
        from bench.render.pictures import write_pictures

        write_pictures(path)
    manifest = read_manifest(path)
    found = _statistics(path, manifest) if more else None
    if as_json:
        extra = {"statistics": found} if found else {}
        print_json({**_summary(path, manifest), **extra, "results_dir": str(path.resolve())})
        return
    from bench.render.run import print_run, print_statistics

    print_run(path)
    if found:
        print_statistics(found, on_draws=manifest.identity.scoring.loss is not None)


def _summary(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the summary; of an incomplete run, that of the images decided so far."""
    from bench.stats.metrics import INCOMPLETE, summary_so_far
    from bench.store.decisions import read_decisions

    decided = read_decisions(path, manifest, top=True)
    if not len(decided):
        return {"run_id": manifest.run_id, "status": INCOMPLETE}
    return summary_so_far(manifest, read_summary(path), decided).plain()


def _statistics(path: Path, manifest: Manifest) -> dict[str, Any]:
    from bench.stats.intervals import statistics
    from bench.store.decisions import read_decisions

    decided = read_decisions(path, manifest, top=True)
    if not len(decided):
        raise UserError(f"{manifest.run_id} has no decided image yet: nothing to count.")
    return statistics(decided, manifest.classes)
