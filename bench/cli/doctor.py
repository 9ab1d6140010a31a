"""`bench doctor`. Check this installation; for bug reports.

Group: See what is there, 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from bench.cli.output import next_steps, print_json, say

if TYPE_CHECKING:
    from bench.running.verbs.doctor import Diagnosis

FOUND = 4  # the exit code where something is wrong


@click.command()
@click.option("--quick", is_flag=True, help="Without the self-test, which takes about 10 seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(quick: bool, as_json: bool) -> int:
    """Check this installation, and print what a bug report needs.

    Versions, devices, sizes of caches, plugins and which of them failed; then a few images are
    scored with the model that is included. The exit code is 4 where something is wrong.
    """
    from bench.discovery.loading import load_plugins
    from bench.running.verbs.doctor import diagnose

    if not quick:
        say("Scoring a few images …", err=True)
    found = diagnose(load_plugins(), testing=not quick)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    return 0 if found.well else FOUND


def _print(found: Diagnosis) -> None:
    from bench.render.tables import table

    commit = f", commit {found.git}" if found.git else ""
    rows: list[Sequence[str]] = [
        ["bench", f"{found.bench}{commit}"],
        ["Python", f"{found.python} on {found.platform}, {found.cpus} CPUs"],
        ["devices", "\n".join(found.devices)],
        ["packages", ", ".join(f"{k} {v or 'MISSING'}" for k, v in found.packages.items())],
        *([f"cache: {c.name}", f"{c.bytes / 1e6:,.1f} MB in {c.folder}"] for c in found.caches),
        ["variables", "\n".join(f"{k}={v}" for k, v in found.variables.items()) or "none"],
    ]
    for plugin in found.plugins:
        said = f"FAILED: {plugin.error}" if plugin.error else "loaded"
        rows.append([f"plugin: {plugin.name}", f"{plugin.distribution} {plugin.version}, {said}"])
    test = found.self_test
    seconds = "" if test.seconds is None else f" in {test.seconds:.1f} s"
    rows.append(["self-test", f"{test.status.upper()}: {test.said}{seconds}"])
    table(["", ""], rows)
    say("\nNothing is wrong." if found.well else "\nSomething is wrong: see the words in capitals.")
    next_steps(("report a problem with all of the above", "bench doctor --json > doctor.json"))
