"""`bench new`. Create a plugin package, ready to test.

Group: Make it yours, 1.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from bench.authoring import PACKAGE_KINDS, Kind, write_package
from bench.cli.options import json_option
from bench.cli.output import end_with_json, next_steps, say
from bench.discovery.loading import load_plugins


@click.command()
@click.argument("kind", type=click.Choice(PACKAGE_KINDS))
@click.argument("name")
@click.option("--into", default=".", help="Folder in which the package is created.")
@json_option
def new_command(kind: Kind, name: str, into: str) -> None:
    """Create a package with a dataset, backbone, strategy or metric, or all of them (plugin).

    It can be installed and passes its tests as it is; then replace the example's code by your own.
    NAME is what `bench run` will call it. The package is bench-NAME, in a folder of that name.
    """
    package = write_package(kind, name, Path(into), load_plugins())
    end_with_json({**asdict(package), "folder": str(package.folder.resolve())})
    say(f"Wrote {package.folder}:")
    for file in package.files:
        say(f"  {file}")
    next_steps(
        ("go there", f"cd {shlex.quote(str(package.folder))}"),
        ("install it", "pip install -e '.[test]'"),
        ("test it", "pytest"),
        ("next, read", "README.md there"),
    )
