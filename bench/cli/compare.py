"""`bench compare`. Compare two runs on the same images.

Group: Look at results, 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import metric_option
from bench.cli.output import next_steps, print_json, run_name, say
from bench.errors import GateError
from bench.machine.offline import offline
from bench.store.folder import find_run

if TYPE_CHECKING:
    from bench.stats.comparison import Comparison, MetricDifference
    from bench.stats.paired import ClassDifference
    from bench.stats.tested import Metric


@click.command()
@click.argument("run_a")
@click.argument("run_b")
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@metric_option
@click.option("--gate", is_flag=True, help="Exit with 4 when B is significantly worse than A.")
@click.option(
    "--seed", default=0, hidden=True, help="Of no effect: no chance is left in the interval."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@offline()
def command(
    run_a: str,
    run_b: str,
    results: str,
    metric: Metric,
    gate: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Compare RUN_B with RUN_A, the baseline, on the samples that both decided.

    A win is a sample that B alone has right. p is McNemar's exact test; the interval of the
    difference is Tango's score interval, widened to 0 where p is above 0.05. With another --metric,
    that is tested too, by a paired permutation test, and --gate asks about it. Runs of another
    dataset, version, split or other classes are refused; other data of the same name, subsets,
    prompts and training are warned of.
    """
    from bench.stats.comparison import compare

    paths = find_run(run_a, results), find_run(run_b, results)
    found = compare(*paths, metric)
    if as_json:
        print_json(found.plain())
    else:
        _print(found)
        names = " ".join(run_name(path, results) for path in paths)
        steps = [("see the images on which they differ", f"bench report {names}")]
        if found.wins + found.losses:
            asked = "" if found.difference else " --difference 0.02"
            needed = ("how many images such a difference needs", f"bench power {names}{asked}")
            steps.append(needed)
        next_steps(*steps)
    if gate and found.regression:
        tested = found.tested
        p = tested.p if tested else found.mcnemar_p
        raise GateError(
            f"{found.run_b} is significantly worse than {found.run_a}:"
            f" {(tested or found).difference:+.4f} (p = {p:.2g})."
        )


def _print(found: Comparison) -> None:
    from bench.render.tables import table

    low, high = found.difference_ci95
    verdict = _verdict(found.mcnemar_p, found.difference)
    cost, seconds, why = found.cost_ratio, found.seconds_ratio, found.not_divided
    rows: list[list[Any]] = [
        ["A", f"{found.run_a}  {found.accuracy_a:.4f}"],
        ["B", f"{found.run_b}  {found.accuracy_b:.4f}"],
        ["difference, B − A", f"{found.difference:+.4f}  (95 % {low:+.4f} – {high:+.4f})"],
        ["wins, losses, ties", f"{found.wins}, {found.losses}, {found.ties}"],
        ["McNemar, exact", f"p = {found.mcnemar_p:.3g}: {verdict}"],
        *_tested(found.tested),
        ["same prediction", f"{100 * found.agreement:.1f} % of {found.n:,} images"],
        ["cost, B / A", why.get("cost") if cost is None else f"{cost:.3g}"],
        ["seconds, B / A", why.get("seconds") if seconds is None else f"{seconds:.3g}"],
    ]
    table(["", ""], rows)
    changed = [r for r in found.per_class if r.wins or r.losses]
    changed.sort(key=lambda r: r.difference)
    if changed:
        head = ["class", "n", "A", "B", "difference", "wins", "losses", "p, adjusted"]
        lines = [_class_line(row) for row in changed]
        optional = ["wins", "losses", "p, adjusted", "n"]
        table(
            head,
            lines,
            title="Classes with images that one of the two has right",
            optional=optional,
        )
    if found.differences:
        rows = [[name, *map(_value, pair)] for name, pair in found.differences.items()]
        table(["setting", "A", "B"], rows, title="Settings that differ")
    for warning in found.warnings:
        say(f"Warning: {warning}", err=True)


def _verdict(p: float, difference: float) -> str:
    from bench.stats.paired import ALPHA

    if p >= ALPHA:
        return "not significant"
    return "B is better" if difference > 0 else "B is worse"


def _tested(found: MetricDifference | None) -> list[list[str]]:
    """Return the lines of another metric that was tested."""
    if found is None:
        return []
    from bench.stats.tested import IN_WORDS

    (low, high), name = found.difference_ci95, IN_WORDS[found.metric]
    verdict = _verdict(found.p, found.difference)
    return [
        [name, f"A {found.a:.4f}, B {found.b:.4f}"],
        [f"{name}, B − A", f"{found.difference:+.4f}  (95 % {low:+.4f} – {high:+.4f})"],
        ["permutation test", f"p = {found.p:.3g}: {verdict}"],
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "unset" if value is None else str(value)


def _class_line(row: ClassDifference) -> list[Any]:
    return [
        row.name,
        row.n,
        f"{row.accuracy_a:.3f}",
        f"{row.accuracy_b:.3f}",
        f"{row.difference:+.3f}",
        row.wins,
        row.losses,
        f"{row.p_adjusted:.2g}",
    ]
