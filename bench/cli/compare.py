"""`bench compare`. Compare two runs on the same images.

Group: Look at results, 4.

`bench power`. Compute how many images a difference needs.

Group: Look at results, 5.
"""

import shlex
from typing import Annotated

import click

from bench.cli.command import METRIC, Params, Results, command, end_with_json
from bench.cli.output import named_run, next_steps, results_argument, run_name, say
from bench.discovery.queries import metric_specs
from bench.errors import GateError, UserError
from bench.reports.comparisons import compare, comparison_facts, comparison_tables
from bench.reports.facts import Fact, difference_fact
from bench.reports.terminal.tables import print_rows, print_table
from bench.stats.inference.power import Power, plan_power
from bench.stats.metrics.comparison import Comparison

MOST_CLASSES = 10  # in the table, those whose accuracies differ most


@command(local=True)
def compare_command(
    run_a: str,
    run_b: str,
    *,
    metric: Annotated[
        str, "Metric whose difference is tested: see `bench list metrics`.", METRIC
    ] = "accuracy",
    params: Params,
    sequential: Annotated[
        bool, "Test image by image in random order: p and interval hold at any stopping point."
    ],
    gate: Annotated[bool, "Exit with code 4 if B is significantly worse than A."],
    results: Results,
) -> None:
    """Compare RUN_B with RUN_A, the baseline, on the samples that both decided.

    A win is a sample that only B classifies correctly. p is McNemar's exact test; the interval of
    the difference is Tango's score interval, corrected for continuity and skewness, and widened to
    include 0 if p is above 0.05. Where several items are about one image, both are of a permutation
    test over images. Another --metric is tested in addition, on the same images, and --gate then
    uses it. Runs are refused if their dataset, version, split or classes differ. A
    warning names other differences: data of the same name with other content, subsets, prompts,
    training.
    """
    paths = named_run(run_a, results), named_run(run_b, results)
    comparison = compare(*paths, metric, sequential, params)
    failed = None
    if gate and comparison.regression:
        tested = (comparison.tested or comparison).difference
        fact = difference_fact(metric_specs()[metric], tested)
        failed = GateError(
            f"{comparison.run_b} is significantly worse than {comparison.run_a}: {fact.label}"
            f" {fact.text} (p = {Fact('', tested.p, 'p').text})."
        )
    end_with_json(comparison.plain(), gate=failed)
    print_rows(["", ""], [[fact.label, fact.line] for fact in comparison_facts(comparison)])
    say("")
    for table in comparison_tables(comparison, MOST_CLASSES):
        print_table(table)
    for warning in comparison.warnings:
        say(f"Warning: {warning}", err=True)
    names = " ".join(run_name(path, results) for path in paths)
    steps = [("see the images on which they differ", f"bench report {names}")]
    if comparison.wins + comparison.losses:
        stated = "" if comparison.difference.estimate else " --difference 0.02"
        power = f"bench power {names}{stated}"
        steps.append(("how many images such a difference needs", power))
    next_steps(*steps)


@command()
def power_command(
    run_a: str | None,
    run_b: str | None,
    *,
    difference: Annotated[float | None, "The difference of the accuracies, such as 0.02."],
    discordance: Annotated[
        float | None, "The share of images that exactly one run classifies correctly."
    ],
    images: Annotated[
        int | None, "The number of available images.", {"type": click.IntRange(1, 10_000_000)}
    ],
    results: Results,
) -> None:
    """Compute how many images are needed to detect a difference, and what N images can detect.

    Give two runs on the same images, or --difference and --discordance. The test is McNemar's
    exact test at 5 %. With two runs, --difference replaces the difference between them.
    """
    if (run_a is None) != (run_b is None):
        raise UserError("Name two runs, or give --difference and --discordance.")
    runs = None
    if run_a is not None and run_b is not None:
        runs = compare(named_run(run_a, results), named_run(run_b, results))
    plan = plan_power(*_power_request(runs, difference, discordance, images))
    end_with_json(plan.model_dump(mode="json"))
    _print_power(plan)
    names = shlex.join([run_a, run_b]) if run_a and run_b else "RUN_A RUN_B"
    next_steps(("test the difference", f"bench compare {names}{results_argument(results)}"))


def _power_request(
    runs: Comparison | None, difference: float | None, discordance: float | None, images: int | None
) -> tuple[float, float, int | None]:
    """Return difference, discordance and images: as stated, or else those of the two runs."""
    if runs is not None:
        discordant = runs.wins + runs.losses
        if not discordant:
            raise UserError(
                "Both runs get the same images right: more images would show no difference."
            )
        n = discordant + runs.ties
        images = n if images is None else images
        discordance = discordant / n if discordance is None else discordance
        if difference is None and not runs.difference.estimate:
            raise UserError(
                f"Both runs have the same accuracy, and differ on {100 * discordance:.3g} % of the"
                " images. State the difference to detect, such as --difference 0.02."
            )
        difference = abs(runs.difference.estimate) if difference is None else difference
    if difference is None or discordance is None:
        raise UserError(
            "Give two runs, or --difference 0.02 --discordance 0.1: the difference of accuracies"
            " and the share of images that exactly one run gets right."
        )
    return difference, discordance, images


def _print_power(plan: Power) -> None:
    say(
        f"A difference of {100 * plan.difference:.3g} points between runs of which exactly one is"
        f" right on {100 * plan.discordance:.3g} % of the images:"
    )
    rows = [
        [f"{100 * needed.power:.0f} %", f"{needed.paired:,}" if needed.paired else "too many"]
        for needed in plan.needed
    ]
    head = ["power", "images, the same for both"]
    print_rows(head, rows, right=head)
    if plan.n is None or plan.power is None:
        return
    shows = "image shows" if plan.n == 1 else "images show"
    say(f"{plan.n:,} {shows} it with a power of {100 * plan.power:.1f} %.")
    if plan.smallest is None:
        of = f"{100 * plan.discordance:.3g} % ({plan.discordance * plan.n:.3g} of {plan.n:,})"
        say(
            f"With {plan.n:,} image{'s' * (plan.n != 1)} no difference can be shown with 80 % power"
            f" at the disagreement assumed here, {of}. Use more."
        )
    else:
        smallest = f"{100 * plan.smallest:.3g} points or more"
        say(f"With a power of 80 % they show a difference of {smallest}.")
