"""`bench run`. Score a dataset; resumes where it stopped.

Group: Score images, 1.
"""

from typing import Annotated, Any

from bench.cli.command import command, end_with_json, names_of
from bench.cli.output import (
    RUN_PICTURES,
    draw_pictures,
    next_steps,
    print_log,
    results_argument,
    run_name,
    say,
    step_after_plan,
    steps_after_run,
)
from bench.cli.progress import Progress
from bench.cli.settings import Sectioned, config_options, settings_from_options
from bench.discovery.loading import load_plugins
from bench.errors import GateError, UserError
from bench.recordings.learn import calibrate_sweep
from bench.reports.facts import percent_text
from bench.reports.run_view import view_of
from bench.reports.terminal.run import print_run
from bench.running.estimate import make_plan
from bench.running.execute import Finished
from bench.running.lifecycle import run, sweep_only, warm_up
from bench.running.parts.settings import RunConfig, make_config
from bench.running.shards import check_slurm, submit, write_script
from bench.running.study.grid import ONE_RUN, declare_grid, lists_in


@command(
    cls=Sectioned,
    needs={"--submit": "--slurm"},
    apart=("--slurm", "--warm-up", "--sweep-only"),
)
@config_options()
def run_command(
    dataset: Annotated[
        str | None, {"envvar": "BENCH_DATASET", "shell_complete": names_of("datasets")}
    ],
    *,
    config_file: Annotated[
        str | None, "A TOML file of settings.", "--config", {"envvar": "BENCH_CONFIG"}
    ],
    shards: Annotated[
        int | None,
        "Write a Slurm script that warms up, sweeps for --risk if needed, and scores N shards; run"
        " nothing.",
        "--slurm",
        {"metavar": "N"},
    ],
    then_submit: Annotated[bool, "With --slurm: also submit the script.", "--submit"],
    verbose: Annotated[
        bool,
        "Also report the fit of the model and the state of each Ray worker.",
        "-v",
        "--verbose",
    ],
    only_warm_up: Annotated[
        bool, "Download weights and encode prompts without scoring.", "--warm-up"
    ],
    only_sweep: Annotated[
        bool, "Run only the full sweep on which --risk is calibrated.", "--sweep-only"
    ],
    dry_run: Annotated[
        bool, "Validate the configuration and print the plan and estimated cost without running."
    ],
    **options: Any,
) -> None:
    """Score DATASET: a name from `bench list datasets`, or a path to a folder of images.

    A path is written with a slash, such as ./my-images.

    \b
    bench run digits                                   small bundled dataset
    bench run ./my-images --backbone sd15 --limit 100  one subfolder per class
    bench run ./my-images --backbone sd15 --dry-run    plan and estimated cost
    bench run digits,ucmerced --backbone sd15,clip-b32 each with each, one table

    Several names with commas, of datasets, backbones or strategies, or several seeds, make a study
    (`bench study`).

    The same command resumes an interrupted run, and shows the result of a complete one. Unless
    --json is set, it also draws the confusion matrix and example images into the run's folder.

    Each setting can also be given as an environment variable (BENCH_OPTION, such as
    BENCH_BACKBONE) or in a TOML file (--config).

    Exit code: 0 if the run is complete, 2 if the input is invalid or a dry run finds something
    missing, 3 if some images failed, 4 if the accuracy is below --min-accuracy.
    """  # noqa: D301  # a real \b: click keeps the lines after it as they are
    settings = settings_from_options(dataset, config_file, **options)
    lists = lists_in(settings)
    if verbose:
        print_log("bench.workers")
        print_log("bench.model")
    if lists:
        from bench.cli.study import run_grid

        modes = {"--slurm": shards, "--warm-up": only_warm_up, "--sweep-only": only_sweep}
        for mode, value in modes.items():
            if value is not None and value is not False:
                raise UserError(f"{mode} {ONE_RUN}")
        run_grid(declare_grid(settings, lists), dry_run)
        return
    config = make_config(settings)
    if dry_run:
        _print_plan(config)
    elif shards is not None:
        _write_slurm_script(config, shards, then_submit)
    elif only_warm_up:
        run_id = warm_up(config)
        end_with_json({"run_id": run_id})
        say(f"The weights and encoded prompts of {run_id} are ready.")
        next_steps(("score it", "the same command without --warm-up"))
    else:
        _score(config, only_sweep)


def _print_plan(config: RunConfig) -> None:
    from bench.reports.terminal.plan import print_plan

    plan = make_plan(config)
    end_with_json(plan.plain(), 2 if plan.missing else 0)
    print_plan(plan.plain())
    step = "score it" if plan.evaluations else "show its result"
    next_steps(step_after_plan(plan.missing, step))


def _score(config: RunConfig, only_sweep: bool) -> None:
    """Score the run, print it, and draw its pictures."""
    with Progress(load_plugins().manager):
        score = sweep_only if only_sweep else run
        # `test` is called once the sweep for a stated risk (--risk) is complete.
        finished = score(config, test=calibrate_sweep, tell=lambda text: say(text, err=True))
    code = 3 if finished.summary.failed_samples else 0
    end_with_json(finished.plain(), code, _failed_gate(config, finished))
    print_run(view_of(finished), finished.resumed, brief=True)
    if config.shard:
        run_id = finished.summary.run_id
        merge = f"bench results merge {run_id}{results_argument(config.results)}"
        next_steps(("when all shards are done", merge))
    else:
        next_steps(*steps_after_run(run_name(finished.folder, config.results)))
    # The pictures come last, because importing matplotlib takes a second. A complete run has none
    # if it was made with --json or interrupted while they were drawn.
    drawn = all((finished.folder / name).is_file() for name in RUN_PICTURES)
    if not (finished.resumed and drawn):
        draw_pictures(finished.folder, finished.manifest)
        for picture in sorted(finished.folder.glob("*.png")):
            say(f"Picture: {picture}")


def _failed_gate(config: RunConfig, finished: Finished) -> GateError | None:
    accuracy = finished.summary.metrics.accuracy
    if config.min_accuracy is None or accuracy >= config.min_accuracy:
        return None
    return GateError(
        f"The accuracy of {percent_text(accuracy)} % ({accuracy:.6g}) is below --min-accuracy"
        f" {config.min_accuracy}."
    )


def _write_slurm_script(config: RunConfig, shards: int, then_submit: bool) -> None:
    if then_submit:
        check_slurm()
    script = write_script(config, shards)
    jobs = submit(script) if then_submit else None
    end_with_json({"script": str(script), "submitted": jobs})
    if jobs is None:
        say(f"Wrote {script}. Check it, then submit it: bash {script} submit")
    else:
        say(f"Submitted {script}: {jobs}")
