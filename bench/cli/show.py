"""`bench show`."""

from __future__ import annotations

import click

from bench.cli.main import print_json
from bench.store.folder import find_run, read_manifest, read_summary


@click.command()
@click.argument("run")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--pictures", is_flag=True, help="Draw confusion matrix and example images again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(run: str, results: str, pictures: bool, as_json: bool) -> None:
    """Show RUN: a run id, or a run's folder."""
    path = find_run(run, results)
    if pictures:
        from bench.report.pictures import write_pictures

        write_pictures(path)
    if as_json:
        manifest = read_manifest(path)
        summary = read_summary(path) or {"run_id": manifest["run_id"], "status": "incomplete"}
        print_json({**summary, "results_dir": str(path.resolve())})
        return
    from bench.cli.render import print_run

    print_run(path)
