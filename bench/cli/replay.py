"""`bench replay`. Run a strategy on a run's recorded errors.

Group: Try ways to score, without a model, 1.

`bench sweep`. Replay many strategies: cost against agreement.

Group: Try ways to score, without a model, 2.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import click

from bench.cli.command import (
    Limit,
    Params,
    Results,
    command,
    end_with_json,
    figure_file,
)
from bench.cli.output import named_run, next_steps, results_argument, run_name, say, wrote
from bench.cli.progress import Progress
from bench.discovery.loading import load_plugins
from bench.discovery.queries import non_default_params
from bench.errors import UserError
from bench.inputs.parsing import split_names
from bench.recordings.recording import find_recording, open_draws
from bench.recordings.replay import SHOWN_AGREEMENT, SweepRow, default_grid, prepare_replay, sweep
from bench.reports.facts import assignments, percent_text
from bench.reports.figures.cost import draw_cost, sweep_panels
from bench.reports.run_view import view_of
from bench.reports.sentences import probability_sentence
from bench.reports.terminal.run import print_run
from bench.reports.terminal.tables import print_rows
from bench.running.execute import execute
from bench.stats.calibration.probability import probability_skill
from bench.store.calibrations import find_calibrations
from bench.store.formats.decisions import read_decisions
from bench.store.formats.journal import JOURNAL


@command()
def replay_command(
    run: str,
    *,
    strategy: Annotated[str, "A registered strategy.", {"required": True}],
    params: Params,
    risk: Annotated[
        float | None,
        "The largest share of decisions that may differ from those of the full sweep: chooses the"
        " strategy's parameters by a calibration on other images (`bench learn`).",
        {"type": click.FloatRange(0, 1, min_open=True, max_open=True)},
    ],
    weighting: Annotated[str | None, "Weights of the noise levels, as in `bench run --weighting`."],
    limit: Limit,
    fresh: Annotated[bool, "Start over instead of showing a stored replay."],
    results: Results,
) -> None:
    """Run a strategy on the recorded errors of RUN, without its model.

    RUN was made with `bench run … --strategy full --save-errors`, or is such a run's error table:
    a folder, or `hf:owner/name` on the Hugging Face Hub. The replay is stored as a run
    of its own, marked as replayed, and counts the evaluations that the strategy asked for.
    """
    path = named_run(run, results, find_recording)
    folder = Path(results)
    with Progress(load_plugins().manager):
        replay = prepare_replay(path, strategy, params, folder, limit, fresh, weighting, risk)
        finished = execute(replay)
    end_with_json(finished.plain(), 3 if finished.summary.failed_samples else 0)
    print_run(view_of(finished), finished.resumed, brief=True)
    decided = read_decisions(finished.folder, finished.manifest)
    if probable := probability_skill(decided, finished.manifest, find_calibrations(folder)):
        say(probability_sentence(probable))
    if (path / JOURNAL).exists():  # not of a table of errors from the Hub
        names = f"{run_name(path, results)} {run_name(finished.folder, results)}"
        next_steps(("compare it with the run it replays", f"bench compare {names}"))


@command()
def sweep_command(
    run: str,
    *,
    strategies: Annotated[
        str | None,
        "Only these strategies, comma-separated; one that the grid lacks has default parameters.",
    ],
    params: Annotated[
        Params, "A parameter that `bench learn` learned from other images; repeat for more."
    ],
    points: Annotated[
        tuple[str, ...],
        "A run on the same images to plot beside the curves, such as one of CLIP; repeatable.",
    ],
    limit: Limit,
    plot_file: Annotated[str | None, "Save the plot to this file, such as pareto.png.", "--plot"],
    results: Results,
) -> None:
    """Replay many strategies on the recorded errors of RUN: cost and agreement.

    Agreement is with the full sweep, which evaluates every prompt on every draw. Intervals are
    95 % (Wilson), and a star marks the Pareto front. The cheapest setting is recommended that is
    shown to decide at least 95 % of such images as the full sweep does. Nothing is stored. RUN may
    be an error table, as in `bench replay`.
    """
    path = named_run(run, results, find_recording)
    plot_path = figure_file("--plot", plot_file) if plot_file else None
    recording = open_draws(path)
    grid = partial(default_grid, recording.n_draws, recording.problem.can_linearise)
    for name, value in params.items():
        if grid({name: value}) == grid():
            raise UserError(f"--set {name}={value} has no effect: no default grid has {name}.")
    settings = grid(params)  # (strategy, parameters) of each replay
    if strategies is not None:
        if not (names := split_names(strategies)):
            raise UserError("--strategies must name at least one strategy; leave it out for all.")
        in_grid = {name for name, _ in settings}
        settings = [setting for setting in settings if setting[0] in names]
        settings += [(name, {}) for name in names if name not in in_grid]
    rows = sweep(path, settings, limit, [named_run(point, results) for point in points])
    if plot_path is not None:
        with wrote(plot_path):
            draw_cost(sweep_panels(rows)).write(plot_path)
    end_with_json([row.plain() for row in rows])
    head = ["", "strategy", "cost", "agreement, %", "accuracy, %"]
    cells = [_sweep_cells(row) for row in sorted(rows, key=lambda row: row.cost)]
    print_rows(head, cells, f"{path.name}, replayed", optional=["accuracy, %"])
    say(
        "Cost: evaluation equivalents per image. Agreement: with the full sweep, which evaluates"
        " every prompt on every draw. A star marks the Pareto front: no other row is as good in"
        " both and better in one."
    )
    say(_recommendation(rows))
    if points:
        say(
            "Runs given as points cost evaluations of their own network; a classifier costs one,"
            " since it encodes each image once."
        )
    replay = f"bench replay {run_name(path, results)} --strategy NAME{results_argument(results)}"
    next_steps(("store the replay of one strategy as a run", replay))


def _recommendation(rows: Sequence[SweepRow]) -> str:
    best = next((row for row in rows if row.recommended), None)
    goal = f"to decide at least {100 * SHOWN_AGREEMENT:g} % of such images as the full sweep does"
    if best is None:
        return f"Nothing is recommended: {len(rows)} settings, and none is shown {goal}."
    return (
        f"Recommended: {_setting_text(best)}, the cheapest of those shown {goal} (lower end of the"
        " 95 % interval). It was chosen on these images, so its cost and agreement on others may be"
        " less good."
    )


def _setting_text(row: SweepRow) -> str:
    """Return a strategy and those of its parameters that are not at their default."""
    strategy = row.summary.strategy
    params = {key: value for key, value in strategy.params.items() if key != "draws"}
    chosen = assignments(non_default_params("strategies", strategy.name, params))
    return f"{strategy.name} {chosen}".strip()


def _sweep_cells(row: SweepRow) -> list[str | float]:
    metrics = row.summary.metrics
    return [
        "*" if row.pareto else "",
        f"{row.summary.backbone.name}, {_setting_text(row)}" if row.point else _setting_text(row),
        row.cost,
        percent_text(row.agreement, row.agreement_ci95),
        percent_text(metrics.accuracy, metrics.accuracy_ci95),
    ]
