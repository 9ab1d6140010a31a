"""`bench replay`. Run a strategy on a run's recorded errors.

Group: Try ways to score, without a model, 1.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import parse_assignments
from bench.cli.output import next_steps, print_json, run_name, say
from bench.store.journal import JOURNAL


@click.command()
@click.argument("run")
@click.option("--strategy", required=True, help="A registered strategy.")
@click.option(
    "--set", "params", multiple=True, metavar="KEY=VALUE", help="A parameter; repeat for more."
)
@click.option(
    "--risk",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The largest share of decisions that may differ from those of the full sweep: chooses the"
    " strategy's parameters by a calibration on other images (`bench calibrate`).",
)
@click.option(
    "--weighting", help="How much a noise level counts, as `bench run --weighting` takes it."
)
@click.option("--loss", help="What the errors must have been measured with; another is refused.")
@click.option("--space", help="In which space; another is refused.")
@click.option("--limit", type=click.IntRange(min=1), help="Replay only N images: stratified.")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--fresh", is_flag=True, help="Start over instead of showing a stored replay.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    run: str,
    strategy: str,
    params: tuple[str, ...],
    risk: float | None,
    weighting: str | None,
    loss: str | None,
    space: str | None,
    limit: int | None,
    results: str,
    fresh: bool,
    as_json: bool,
) -> None:
    """Run a strategy on the recorded errors of RUN, without its model.

    RUN was made with `bench run … --strategy full --save-errors`, or is such a run's error table:
    a folder, or `hf:owner/name` on the Hugging Face Hub. The replay is stored as a run
    of its own, marked as replayed, and counts the evaluations that the strategy asked for.
    """
    from bench.recordings.hub import find_recording
    from bench.recordings.replay import prepare_replay
    from bench.running.execute import execute

    path = find_recording(run, results)
    given, where = parse_assignments(params), Path(results)
    finished = execute(
        prepare_replay(path, strategy, given, where, limit, fresh, weighting, loss, space, risk)
    )
    if as_json:
        print_json(finished.plain())
        return
    from bench.render.run import print_run
    from bench.render.worth import said_probability
    from bench.stats.intervals import probability
    from bench.store.calibrations import find_calibrations
    from bench.store.decisions import read_decisions

    print_run(finished.folder, finished.manifest, finished.summary, finished.resumed)
    decided = read_decisions(finished.folder, finished.manifest)
    if found := probability(decided, finished.manifest, find_calibrations(Path(results))):
        say(said_probability(found))
    one, other = run_name(path, results), run_name(finished.folder, results)
    if (path / JOURNAL).exists():  # not of a table of errors from the Hub
        next_steps(("compare it with the run it replays", f"bench compare {one} {other}"))
