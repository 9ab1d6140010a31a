"""`bench fetch`. Download models and data for offline use.

Group: See what is there, 5.
"""

from __future__ import annotations

import shlex

import click

from bench.cli.options import json_option
from bench.cli.output import end_with_json, next_steps, print_log, say, wants_json
from bench.errors import UserError
from bench.running.fetch import Fetched, fetch


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--revision", help="The Hub revision of weights; only with a single NAME.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Precision to download if the Hub has several [default: the backbone's].",
)
@json_option
def fetch_command(names: tuple[str, ...], revision: str | None, dtype: str | None) -> None:
    """Download the weights or data of each NAME, and check them.

    NAME is a backbone, a Hub id, a dataset (also hf:OWNER/NAME or @COLLECTION), or a study, whose
    data and weights are all fetched. Their sizes are printed before. They are kept in the caches of
    the Hub's libraries; afterwards `bench run --offline` needs no network.
    """
    if revision and len(names) > 1:
        raise UserError("--revision needs a single NAME.")
    print_log("bench.hub")
    fetched: list[Fetched] = []
    for name in names:
        for part in fetch(name, revision, dtype):
            fetched.append(part)
            say(f"{part.name}: {_describe(part)}.", err=wants_json())
    end_with_json([part.plain() for part in fetched])
    models = [part.name for part in fetched if part.weights]
    data = [part.name for part in fetched if part.kind == "dataset"]
    more = {
        "--backbone": models[-1] if models else None,
        "--revision": revision,
        "--dtype": dtype,
    }
    words = [word for name, value in more.items() if value for word in (name, value)]
    again = ["bench", "run", data[-1] if data else "DATASET", *words, "--offline"]
    if models or data:
        next_steps(("score with it", shlex.join(again)))


def _describe(part: Fetched) -> str:
    where = "it has no weights of its own"
    if part.images is not None:
        where = f"{part.images:,} images are on this machine"
    elif part.weights:
        where = f"{part.weights} is in {part.folder}"
    return where + (f" (licence: {part.licence})" if part.licence else "")
