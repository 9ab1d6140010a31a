"""`bench perf`. Measure a model's speed on this machine.

Group: See what is there, 4.

`bench fetch`. Download a model for offline use.

Group: See what is there, 5.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import json_option, parse_names
from bench.cli.output import next_steps, print_json, say
from bench.cli.settings import config_from_options, config_options
from bench.errors import UserError
from bench.render.tables import print_rows
from bench.running.command import same_options
from bench.running.verbs.fetch import Fetched, fetch

if TYPE_CHECKING:
    from bench.perf.measure import Measured

_OPTIONS = (
    *("backbone", "strategy", "params", "weights", "revision", "template", "resolution", "limit"),
    *("batch_size", "dtype", "device", "tf32", "compile", "layout", "attention"),
)


@click.command()
@click.option(
    "--dataset",
    default="-",
    help="Measure with the prompts of this dataset, and estimate the time of a run on it.",
)
@config_options(_OPTIONS)
@click.option("--only", help="Measure only these strategies, comma-separated (default: all).")
@click.option("--sizes", help="Batch sizes of the bare network, comma-separated.")
@click.option("--seconds", default=20.0, show_default=True, help="About how long to measure.")
@json_option
@click.pass_context
def perf_command(
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
    --dry-run estimates the time from this speed. The images are random. With --dataset and
    --strategy, it also prints how long that run takes at most. A gradient counts as the evaluations
    that it costs.
    """
    config = config_from_options(ctx, dataset, **options)
    batch_sizes = _batch_sizes(sizes)
    from bench.perf.measure import measure

    report = measure(config, tuple(parse_names(only)), batch_sizes, seconds)
    if as_json:
        print_json(report.plain())
    else:
        _print(report)
        name = "DATASET" if dataset == "-" else dataset
        backbone = config.backbone or report.backbone
        command = same_options(config, "--dry-run", dataset=name, backbone=backbone)
        next_steps(("see what a run costs", command))


def _batch_sizes(sizes: str | None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise click.BadParameter(f"{sizes!r}: write it as 8,16,32.", param_hint="--sizes")
    return numbers


def _print(report: Measured) -> None:
    flops, peak = report.flops_per_evaluation, report.peak_flops

    rows: list[tuple[str, float, str | None]] = [
        (f"bare, batches of {speed.batch_size}", speed.evaluations_per_second, None)
        for speed in report.bare
    ]
    rows += [
        (f"engine, {name}", rate, f"{report.engine_over_bare[name]:.3f}")
        for name, rate in report.engine.items()
    ]
    print_rows(
        ["", "evaluations/s", "of the bare network", "utilisation, %"],
        [[label, rate, share, 100 * rate * flops / peak] for label, rate, share in rows],
        title=f"{report.backbone} in {report.dtype} on {report.device}",
    )
    say(
        f"{flops / 1e6:,.1f} MFLOP per evaluation; the device's best matrix product:"
        f" {peak / 1e9:,.1f} GFLOP/s"
    )
    memory = report.peak_memory_bytes
    peak_memory = f"; peak memory {memory / 2**20:,.0f} MiB" if memory else ""
    say(f"Best batch size: {report.best_batch_size}{peak_memory}")
    plan = report.plan
    if plan and plan.seconds is not None:
        say(
            f"{plan.dataset}, {plan.strategy}: {plan.images:,} images, at most"
            f" {plan.evaluations:,} evaluations, {plan.seconds / 3600:,.2f} hours"
        )


@click.command()
@click.argument("backbones", nargs=-1, required=True, metavar="BACKBONE…")
@click.option("--revision", help="The Hub revision; only with a single backbone.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Precision to download if the Hub has several [default: the backbone's].",
)
@json_option
def fetch_command(
    backbones: tuple[str, ...], revision: str | None, dtype: str | None, as_json: bool
) -> None:
    """Download the weights of each BACKBONE, a name or a Hub id, and check them.

    They are kept in the Hub's cache; afterwards `bench run --offline` needs no network.
    """
    if revision and len(backbones) > 1:
        raise UserError("--revision needs a single backbone.")
    fetched: list[Fetched] = []
    for name in backbones:
        model = fetch(name, revision, dtype)
        fetched.append(model)
        where = "it has no weights of its own"
        if model.weights:
            where = f"{model.weights} is in {model.folder}"
        licence = f" (licence: {model.licence})" if model.licence else ""
        say(f"{name}: {where}{licence}.", err=as_json)
    if as_json:
        print_json([model.plain() for model in fetched])
    elif ready := [model.name for model in fetched if model.weights]:
        more = {"--revision": revision, "--dtype": dtype}
        words = [word for name, value in more.items() if value for word in (name, value)]
        again = ["bench", "run", "DATASET", "--backbone", ready[-1], *words, "--offline"]
        next_steps(("score with it", shlex.join(again)))
