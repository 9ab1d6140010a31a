"""`bench reproduce`. Repeat a published experiment.

Group: Many runs, repeated and published, 2.
"""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from bench.cli.options import config_options, parse_assignments
from bench.cli.output import next_steps, print_json, results_option
from bench.discovery.loading import load_plugins

_OPTIONS = (
    *(
        "backbone",
        "strategy",
        "params",
        "data_dir",
        "limit",
        "weights",
        "device",
        "dtype",
        "batch_size",
    ),
    *("save_errors", "results", "fresh"),
)


@click.command()
@click.argument("protocol")
@config_options(_OPTIONS)
@click.option("--published", type=click.FloatRange(0, 1), help="The figure to compare with.")
@click.option("--dry-run", is_flag=True, help="Print what it would take, and run nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on stdout, all else on stderr."
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    protocol: str,
    published: float | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Repeat PROTOCOL, a published experiment, and show our figure beside the published one.

    `bench list protocols` shows all. The options go before the protocol's settings, and what is
    changed by them is said. A rehearsal, offline and in little time:
    `--backbone tiny-landuse --strategy uniform --set draws=8 --limit 10`.
    """
    from bench.cli.progress import Progress
    from bench.render.reproduction import print_reproduction
    from bench.running.verbs.reproduce import reproduce

    spec = load_plugins().protocols.get(protocol)
    given: dict[str, Any] = {}
    for name, value in options.items():
        if ctx.get_parameter_source(name) not in (ParameterSource.DEFAULT, None):
            given[name] = parse_assignments(value) if name == "params" else value
    if dry_run:
        made = reproduce(spec, given, published, dry_run=True)
    else:
        with Progress(load_plugins().manager):
            made = reproduce(spec, given, published)
    if as_json:
        print_json(made.plain())
    else:
        print_reproduction(made)
        if dry_run:
            next_steps(("repeat it", "the same command without --dry-run"))
        elif made.run_id:
            option = results_option(options["results"] or "results")
            next_steps(("see the mistakes", f"bench report {made.run_id}{option}"))
    return 0
