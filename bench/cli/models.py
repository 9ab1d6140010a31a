"""`bench fetch`. Download a model for offline use.

Group: See what is there, 5.
"""

from __future__ import annotations

import shlex

import click

from bench.cli.options import json_option
from bench.cli.output import end_with_json, next_steps, say, wants_json
from bench.errors import UserError
from bench.running.fetch import Fetched, fetch


@click.command()
@click.argument("backbones", nargs=-1, required=True, metavar="BACKBONE…")
@click.option("--revision", help="The Hub revision; only with a single backbone.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Precision to download if the Hub has several [default: the backbone's].",
)
@json_option
def fetch_command(backbones: tuple[str, ...], revision: str | None, dtype: str | None) -> None:
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
        say(f"{name}: {where}{licence}.", err=wants_json())
    end_with_json([model.plain() for model in fetched])
    if ready := [model.name for model in fetched if model.weights]:
        more = {"--revision": revision, "--dtype": dtype}
        words = [word for name, value in more.items() if value for word in (name, value)]
        again = ["bench", "run", "DATASET", "--backbone", ready[-1], *words, "--offline"]
        next_steps(("score with it", shlex.join(again)))
