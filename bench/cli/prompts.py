"""`bench prompts`. Show the texts that images are compared with.

Group: Score images, 4.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

from bench.cli.options import config_from_options, config_options
from bench.cli.output import next_steps, print_json, say
from bench.running.parts.data import DATA_SETTINGS


@click.command()
@click.argument("dataset")
@config_options(
    ["template", "prompts", "data_dir", *DATA_SETTINGS, "backbone", "weights", "revision"]
)
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Show the prompts of DATASET, and their tokens for the backbone.

    Where class names were put into words, the name in the data is shown beside them.
    """
    from bench.running.checks import token_counts
    from bench.running.prepare import prepare

    prepared = prepare(config_from_options(ctx, None, **options), images=False)
    named, prompts, name = prepared.named, prepared.prompts, prepared.resolved.backbone_name
    counts: Sequence[int | None] = [None] * len(prompts.texts)
    if prepared.absent:
        note = f"No token counts: {prepared.absent[0]}"
    elif (counted := token_counts(prepared)) is None:
        note = f"The backbone {name} cannot count tokens."
    else:
        counts, most = counted
        note = f"Tokens of {name}, start and end included; at most {most}."
    rows = [
        {
            "class": named.names[index],
            "found": named.found[index],
            "prompt": text,
            "tokens": tokens,
        }
        for text, index, tokens in zip(prompts.texts, prompts.class_of_prompt, counts, strict=True)
    ]
    if as_json:
        print_json(rows)
        return
    from bench.render.tables import table

    heads = {"class": "class", "found": "in the data", "prompt": "prompt", "tokens": "tokens"}
    shown = [key for key in heads if key != "found" or named.changed]
    table([heads[key] for key in shown], [[row[key] for key in shown] for row in rows])
    say(note)
    dataset = shlex.quote(options["dataset"])
    scored = shlex.quote(options["backbone"]) if options["backbone"] else "NAME"
    command = f"bench run {dataset} --backbone {scored} --dry-run"
    next_steps(("see what asking them costs", command))
