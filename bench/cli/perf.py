"""`bench perf`. Measure a model's speed on this machine.

Group: See what is there, 4.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import config_from_options, config_options
from bench.cli.output import next_steps, print_json, say

if TYPE_CHECKING:
    from bench.perf.measure import Measured

_OPTIONS = (
    *("backbone", "strategy", "params", "weights", "revision", "template", "resolution", "limit"),
    *("batch_size", "dtype", "device", "tf32", "compile", "layout", "attention"),
)


@click.command()
@click.option("--dataset", default="-", help="A dataset: its prompts, and how long it would take.")
@config_options(_OPTIONS)
@click.option("--only", help="Measure only these strategies, comma-separated (default: all).")
@click.option("--sizes", help="Batch sizes of the bare network, comma-separated.")
@click.option("--seconds", default=20.0, show_default=True, help="About how long to measure.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    dataset: str,
    only: str | None,
    sizes: str | None,
    seconds: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a backbone on this machine: the bare network, the engine, and the device's peak.

    The best batch size and the speed are remembered. `bench run` uses this batch size, and its
    --dry-run estimates the time from this speed. Images are made up. With --dataset and --strategy
    it also says how long that run would take, at the most. A gradient counts as the evaluations
    that it costs.
    """
    config = config_from_options(ctx, None, dataset, **options)
    chosen = _numbers(sizes)
    from bench.perf.measure import measure

    names = tuple(name.strip() for name in only.split(",")) if only else ()
    report = measure(config, names, chosen, seconds)
    if as_json:
        print_json(report.plain())
    else:
        _print(report)
        named = "DATASET" if dataset == "-" else shlex.quote(dataset)
        scored = shlex.quote(config.backbone or report.backbone)
        next_steps(("see what a run costs", f"bench run {named} --backbone {scored} --dry-run"))


def _numbers(sizes: str | None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"{sizes!r}: write it as 8,16,32.", param_hint="--sizes")
    return numbers


def _print(report: Measured) -> None:
    from bench.render.tables import table

    flops, peak = report.flops_per_evaluation, report.peak_flops

    def used(rate: float) -> float:
        return float(100 * rate * flops / peak)

    rows: list[list[Any]] = [
        [f"bare, batches of {each.batch_size}", each.evaluations_per_second, None]
        for each in report.bare
    ]
    rows += [
        [f"engine, {name}", rate, f"{report.engine_over_bare[name]:.3f}"]
        for name, rate in report.engine.items()
    ]
    table(
        ["", "evaluations/s", "of the bare network", "utilisation, %"],
        [[label, rate, share, used(rate)] for label, rate, share in rows],
        title=f"{report.backbone} in {report.dtype} on {report.device}",
    )
    say(
        f"{flops / 1e6:,.1f} MFLOP per evaluation; the device's best matrix product:"
        f" {peak / 1e9:,.1f} GFLOP/s"
    )
    memory = report.peak_memory_bytes
    say(
        f"Best batch size: {report.best_batch_size}"
        + (f"; peak memory {memory / 2**20:,.0f} MiB" if memory else "")
    )
    plan = report.plan
    if plan and plan.seconds is not None:
        say(
            f"{plan.dataset}, {plan.strategy}: {plan.images:,} images, at most"
            f" {plan.evaluations:,} evaluations, {plan.seconds / 3600:,.2f} hours"
        )
