"""`bench run`. Score a dataset; resumes where it stopped.

Group: Score images, 1.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from bench.cli.options import json_option
from bench.cli.output import (
    after_plan,
    after_run,
    draw_pictures,
    in_results,
    next_steps,
    print_json,
    run_name,
    say,
)
from bench.cli.progress import Progress
from bench.cli.settings import Sectioned, config_from_options, config_options, names_of
from bench.discovery.loading import load_plugins
from bench.errors import GateError, UserError
from bench.recordings.promised import run
from bench.recordings.promised import sweep_only as swept
from bench.render.plan import print_plan
from bench.render.run import print_run
from bench.running.run import warm_up as warmed_up
from bench.running.settings import RunConfig
from bench.running.verbs.estimate import make_plan
from bench.running.verbs.shards import check_slurm, submit, write_script


@click.command(cls=Sectioned)
@click.argument(
    "dataset", required=False, envvar="BENCH_DATASET", shell_complete=names_of("datasets")
)
@config_options()
@click.option("--config", "config_file", envvar="BENCH_CONFIG", help="A TOML file of settings.")
@click.option(
    "--slurm", type=int, metavar="N", help="Write a Slurm script of N shards; run nothing."
)
@click.option("--submit", is_flag=True, help="With --slurm: submit the script as well.")
@click.option("-v", "--verbose", is_flag=True, help="Also report the state of each worker of Ray.")
@click.option("--warm-up", is_flag=True, help="Fetch weights and encode prompts; score nothing.")
@click.option("--sweep-only", is_flag=True, help="Make only the sweep that --risk calibrates on.")
@click.option("--dry-run", is_flag=True, help="Check everything and print the plan and its cost.")
@json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    slurm: int | None,
    submit: bool,
    verbose: bool,
    warm_up: bool,
    sweep_only: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Score DATASET: a name from `bench list datasets`, or a folder of images (with a slash).

    \b
    bench run digits                                   small, and included
    bench run ./my-images --backbone sd15 --limit 100  a folder for each class
    bench run ./my-images --backbone sd15 --dry-run    what that would take

    The same command resumes a run that was interrupted, and shows one that is complete.
    Every option can also be set by a variable BENCH_OPTION, or in a TOML file (--config).
    """  # noqa: D301  # a real \b: click keeps the lines after it as they are
    config = config_from_options(ctx, **options)
    if verbose:
        logger = logging.getLogger("bench.workers")
        logger.setLevel(logging.INFO)
        logger.addHandler(_Lines())
    if dry_run:
        plan = make_plan(config)
        if as_json:
            print_json(plan.plain())
        else:
            print_plan(plan.plain())
            what = "score it" if plan.evaluations else "show its result"
            next_steps(after_plan(plan.missing, what))
        return 2 if plan.missing else 0
    if slurm is not None or submit:
        return _slurm(config, slurm, submit, as_json)
    if warm_up:
        run_id = warmed_up(config)
        if as_json:
            print_json({"run_id": run_id})
        else:
            say(f"{run_id} can be scored.")
            next_steps(("score it", "the same command without --warm-up"))
        return 0
    with Progress(load_plugins().manager):
        made = swept if sweep_only else run
        finished = made(config, tell=lambda text: say(text, err=True))
    summary = finished.summary
    if as_json:
        print_json(finished.plain())
    else:
        print_run(finished.folder, finished.manifest, summary, finished.resumed)
        if config.shard:
            merge = f"bench results merge {summary.run_id}{in_results(config.results)}"
            next_steps(("when all shards are done", merge))
        else:
            next_steps(*after_run(run_name(finished.folder, config.results)))
        if not finished.resumed:  # last: the library that draws takes a second to import
            draw_pictures(finished.folder, finished.manifest)
            for picture in sorted(finished.folder.glob("*.png")):
                say(f"Picture: {picture}")
    accuracy = summary.metrics.accuracy
    if config.min_accuracy is not None and accuracy < config.min_accuracy:
        raise GateError(f"Accuracy {accuracy:.4f} is below --min-accuracy {config.min_accuracy}.")
    return 3 if summary.failed_samples else 0


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), err=True)


def _slurm(config: RunConfig, shards: int | None, submitted: bool, as_json: bool) -> int:
    if shards is None:
        raise UserError("--submit needs --slurm N, the number of shards.")
    if submitted:
        check_slurm()
    script = write_script(config, shards)
    jobs = submit(script) if submitted else None
    if as_json:
        print_json({"script": str(script), "submitted": jobs})
    elif jobs is None:
        say(f"Wrote {script}. Look at it, then: bash {script} submit")
    else:
        say(f"Submitted {script}: {jobs}")
    return 0
