"""`bench power`. How many images a difference between runs needs.

Group: Look at results, 5.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from bench.cli.output import next_steps, print_json, results_option, say
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.stats.power import Power


@click.command()
@click.argument("run_a", required=False)
@click.argument("run_b", required=False)
@click.option("--difference", type=float, help="Of the accuracies, such as 0.02.")
@click.option("--discordance", type=float, help="The share of images that one run alone has right.")
@click.option("--images", type=click.IntRange(1, 10_000_000), help="Images that there are.")
@click.option("--accuracy", type=click.FloatRange(0, 1), help="Of the first run, if it is known.")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    run_a: str | None,
    run_b: str | None,
    difference: float | None,
    discordance: float | None,
    images: int | None,
    accuracy: float | None,
    results: str,
    as_json: bool,
) -> None:
    """Say how many images a difference needs, and what so many images can show.

    Give two runs on the same images, or --difference and --discordance. The test is McNemar's
    exact one at 5 %. Of two runs, --difference asks about another difference than theirs.
    """
    from bench.stats.power import plan_power

    if run_a is not None and run_b is not None:
        from bench.stats.comparison import compare
        from bench.store.folder import find_run

        found = compare(find_run(run_a, results), find_run(run_b, results))
        if not found.wins + found.losses:
            raise UserError("These runs are right on the same images: no number shows more.")
        discordance = discordance or (found.wins + found.losses) / found.n
        difference = difference or abs(found.difference)
        images, accuracy = images or found.n, accuracy or found.accuracy_a
        if not difference:
            raise UserError(
                f"Both runs have the same accuracy, and differ on {100 * discordance:.1f} % of the"
                " images. Say which difference you ask about, such as --difference 0.02."
            )
    elif run_a is not None:
        raise UserError("Name two runs, or give --difference and --discordance.")
    if difference is None or discordance is None:
        raise UserError(
            "Give two runs, or --difference 0.02 --discordance 0.1: how far accuracies differ, and"
            " on which share of the images one run alone is right."
        )
    plan = plan_power(difference, discordance, images, accuracy)
    if as_json:
        print_json(plan.model_dump(mode="json"))
    else:
        _print(plan)
        names = shlex.join([run_a, run_b]) if run_a and run_b else "RUN_A RUN_B"
        next_steps(("test the difference", f"bench compare {names}{results_option(results)}"))


def _print(plan: Power) -> None:
    from bench.render.tables import table

    say(
        f"A difference of {100 * plan.difference:.2g} points between runs of which exactly one is"
        f" right on {100 * plan.discordance:.3g} % of the images:"
    )
    rows = [
        [
            f"{100 * one.power:.0f} %",
            "too many" if one.paired is None else f"{one.paired:,}",
            "too many" if one.unpaired is None else f"{one.unpaired:,}",
        ]
        for one in plan.needed
    ]
    head = ["power", "images, the same for both", "images each, if not the same"]
    table(head, rows, right=head)
    if plan.n is not None and plan.power is not None and plan.simulated is not None:
        say(
            f"{plan.n:,} {'image shows' if plan.n == 1 else 'images show'} it with a power of"
            f" {100 * plan.power:.1f} %"
            f" ({100 * plan.simulated:.1f} % of 2,000 simulated studies found it)."
        )
        say(
            f"With a power of 80 % they show a difference of {100 * plan.smallest:.2g} points or"
            " more."
            if plan.smallest is not None
            else "They show no difference with a power of 80 %, however large: runs that agree on"
            " so many images differ on too few."
        )
