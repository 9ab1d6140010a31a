"""`bench fetch`. Download a model, for work without a network.

Group: See what is there, 5.
"""

from __future__ import annotations

import shlex

import click

from bench.cli.output import next_steps, print_json, say


@click.command()
@click.argument("backbones", nargs=-1, required=True, metavar="BACKBONE…")
@click.option("--revision", help="The Hub revision, where one backbone is fetched.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of two stored precisions, the one that fits it [default: the backbone's].",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def command(
    backbones: tuple[str, ...], revision: str | None, dtype: str | None, as_json: bool
) -> None:
    """Download the weights of each BACKBONE, a name or a Hub id, and check them.

    They are kept in the Hub's cache; afterwards `bench run --offline` needs no network.
    """
    from bench.errors import UserError
    from bench.running.verbs.fetch import Fetched, fetch

    if revision and len(backbones) > 1:
        raise UserError("--revision goes with one backbone.")
    fetched: list[Fetched] = []
    for name in backbones:
        found = fetch(name, revision, dtype)
        fetched.append(found)
        where = (
            f"{found.weights} is in {found.folder}"
            if found.weights
            else "it has no weights of its own"
        )
        licence = f" (licence: {found.licence})" if found.licence else ""
        say(f"{name}: {where}{licence}.", err=as_json)
    if as_json:
        print_json([found.plain() for found in fetched])
    elif ready := [found.name for found in fetched if found.weights]:
        again = f"bench run DATASET --backbone {shlex.quote(ready[-1])} --offline"
        next_steps(("score with it", again))
