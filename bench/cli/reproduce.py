"""`bench reproduce`. Repeat a published experiment.

Group: Many runs, repeated and published, 2.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click

from bench.cli.options import json_option, parse_assignments, set_by_user
from bench.cli.output import in_results, next_steps, print_json
from bench.cli.progress import Progress
from bench.cli.settings import config_options
from bench.discovery.loading import load_plugins
from bench.render.plan import print_reproduction
from bench.running.verbs.reproduce import reproduce

_OPTIONS = (
    *("backbone", "strategy", "params", "data_dir", "limit", "weights", "device", "dtype"),
    *("batch_size", "save_errors", "results", "fresh"),
)


@click.command()
@click.argument("protocol")
@config_options(_OPTIONS)
@click.option("--published", type=click.FloatRange(0, 1), help="The figure to compare with.")
@click.option("--dry-run", is_flag=True, help="Print what it would take, and run nothing.")
@json_option
@click.pass_context
def reproduce_command(
    ctx: click.Context,
    /,
    protocol: str,
    published: float | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Repeat PROTOCOL, a published experiment, and show our figure beside the published one.

    `bench list protocols` shows all. Options replace the protocol's settings, and the result says
    which. A rehearsal, offline and in little time:
    `--backbone tiny-landuse --strategy uniform --set draws=8 --limit 10`.
    """
    spec = load_plugins().protocols.get(protocol)
    settings = set_by_user(ctx, options)
    if "params" in settings:
        settings["params"] = parse_assignments(settings["params"])
    with nullcontext() if dry_run else Progress(load_plugins().manager):
        reproduction = reproduce(spec, settings, published, dry_run=dry_run)
    if as_json:
        print_json(reproduction.plain())
        return
    print_reproduction(reproduction)
    if dry_run:
        next_steps(("repeat it", "the same command without --dry-run"))
    elif reproduction.run_id:
        option = in_results(options["results"] or "results")
        next_steps(("see the mistakes", f"bench report {reproduction.run_id}{option}"))
