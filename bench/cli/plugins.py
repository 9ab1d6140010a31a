"""`bench plugins`. List installed plugins, and what failed to load.

Group: See what is there, 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from bench.cli.output import next_steps, print_json
from bench.discovery.loading import load_plugins


@click.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def command(as_json: bool) -> None:
    """List the installed plugins: what each registered, or why it failed."""
    plugins = load_plugins().loaded
    rows = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "module": plugin.module,
            "status": "failed" if plugin.error else "loaded",
            "registered": plugin.registered,
            "error": plugin.error,
        }
        for plugin in plugins
    ]
    if as_json:
        print_json(rows)
        return
    from bench.render.tables import table

    table(
        ["plugin", "distribution", "version", "status", "registers"],
        [
            [
                plugin.name,
                plugin.distribution,
                plugin.version,
                "failed" if plugin.error else "loaded",
                plugin.error or _by_kind(plugin.registered),
            ]
            for plugin in plugins
        ],
        optional=["version", "distribution"],
    )
    next_steps(("write one of your own", "bench new plugin NAME"))


def _by_kind(registered: Sequence[str]) -> str:
    """Return `backbone sd15`, `backbone sd21` as `backbone: sd15, sd21`."""
    kinds: dict[str, list[str]] = {}
    for entry in registered:
        kind, _, name = entry.partition(" ")
        kinds.setdefault(kind, []).append(name)
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
