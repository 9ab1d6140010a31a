"""`bench sweep`. Replay many strategies: cost against agreement.

Group: Try ways to score, without a model, 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bench.cli.output import next_steps, print_json, run_name, say
from bench.errors import UserError
from bench.store.folder import find_run

if TYPE_CHECKING:
    from bench.recordings.sweep import SweepRow


@click.command()
@click.argument("run")
@click.option("--against", help="A full sweep with another seed: the ceiling of any agreement.")
@click.option("--strategies", help="Only these, comma-separated; others with their defaults.")
@click.option("--order", help="Timesteps that a race asks for first, from `bench learn-order`.")
@click.option(
    "--deviation",
    type=click.FloatRange(min=0, min_open=True),
    help="What a race may know of a difference on a draw, by `bench learn-order` on other images.",
)
@click.option(
    "--points",
    multiple=True,
    help="A run on the same images to stand beside the curves, such as one of CLIP; repeatable.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only N images: stratified.")
@click.option("--plot", "plot_file", help="A file for the plot, such as pareto.png.")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def command(
    run: str,
    against: str | None,
    strategies: str | None,
    order: str | None,
    deviation: float | None,
    points: tuple[str, ...],
    limit: int | None,
    plot_file: str | None,
    results: str,
    as_json: bool,
) -> None:
    """Replay many strategies on the recorded errors of RUN: cost and agreement.

    Agreement is with the full sweep, which evaluates every prompt on every draw. Its ceiling is
    the agreement of two full sweeps with different seeds (--against). Intervals are 95 % (Wilson),
    and a star marks the Pareto front. Nothing is stored.
    """
    from bench.recordings.recording import open_recording
    from bench.recordings.sweep import default_grid, self_agreement, sweep
    from bench.recordings.sweep_plot import cheapest_proof, plot
    from bench.render.figure_files import figure_file

    path = find_run(run, results)
    drawn = figure_file("--plot", plot_file) if plot_file else None
    ceiling = self_agreement(path, find_run(against, results)) if against else None
    recording = open_recording(path)
    learned = {"order": order, "deviation": deviation}
    settings = default_grid(recording.n_draws, recording.problem.can_linearise, learned)
    if strategies is not None:
        names = [name.strip() for name in strategies.split(",") if name.strip()]
        if not names:
            raise UserError("--strategies names none; leave it out for all of them.")
        known = {name for name, _ in settings}
        settings = [s for s in settings if s[0] in names]
        settings += [(name, {}) for name in names if name not in known]
    rows = sweep(path, settings, limit, [find_run(point, results) for point in points])
    if drawn is not None:
        plot(rows, ceiling, drawn)
    if as_json:
        if ceiling is not None:
            rows = [row.model_copy(update={"self_agreement": ceiling}) for row in rows]
        print_json([row.plain() for row in rows])
        return
    from bench.render.tables import table

    head = ["", "strategy", "cost", "agreement, %", "accuracy, %"]
    lines = [_line(row) for row in sorted(rows, key=lambda row: row.cost)]
    table(head, lines, f"{path.name}, replayed", optional=["accuracy, %"])
    say(
        "Cost: evaluation equivalents per image. Agreement: with the full sweep, which evaluates"
        " every prompt on every draw. A star marks the Pareto front: no other row costs"
        " less and agrees as much."
    )
    if (proof := cheapest_proof(rows)) is not None:
        say(
            f"Oracle: knowing the winner, a proof by the bound of the race that agrees most takes"
            f" {proof:.1f}."
        )
    if points:
        say(
            "Runs given as points cost evaluations of their own network; a classifier costs one,"
            " since it encodes each image once."
        )
    if ceiling:
        say(
            f"A full sweep with another seed ({ceiling.against}) makes the same decision on"
            f" {_share(ceiling.agreement, ceiling.agreement_ci95)} % of"
            f" {ceiling.n_samples} images."
        )
    name = run_name(path, results)
    next_steps(("keep one as a run of its own", f"bench replay {name} --strategy NAME"))


def _line(row: SweepRow) -> list[str | float]:
    from bench.boards.formats import assignments
    from bench.boards.settings import chosen

    strategy, metrics = row.summary.strategy, row.summary.metrics
    given = {key: value for key, value in strategy.params.items() if key != "draws"}
    name = f"{row.summary.backbone.name}, {strategy.name}" if row.point else strategy.name
    return [
        "*" if row.pareto else "",
        f"{name} {assignments(chosen(strategy.name, given))}".strip(),
        row.cost,
        _share(row.agreement, row.agreement_ci95),
        _share(metrics.accuracy, metrics.accuracy_ci95),
    ]


def _share(value: float, ends: tuple[float, float]) -> str:
    return f"{100 * value:.1f} ({100 * ends[0]:.1f}–{100 * ends[1]:.1f})"
