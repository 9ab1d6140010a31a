"""`bench prompts`."""

from __future__ import annotations

from typing import Any

import click

from bench.cli.options import config_from_options, config_options
from bench.cli.output import print_json, say
from bench.errors import UserError


@click.command()
@click.argument("dataset")
@config_options(["template", "prompts", "data_dir", "backbone", "weights", "revision"])
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> None:
    """Show the prompts of DATASET, and their tokens for the backbone."""
    from bench.inputs.data import load_rows
    from bench.running.assembly import find_weights, make_prompts
    from bench.running.resolve import resolve

    resolved = resolve(config_from_options(ctx, None, **options))
    spec = resolved.dataset
    classes = spec.classes or tuple(
        load_rows(spec, None, resolved.config.data_dir).features["label"].names
    )
    prompts = make_prompts(resolved, classes)
    counts: list[int | None] = [None] * len(prompts.texts)
    note = f"The backbone {resolved.backbone_name} cannot count tokens."
    if count := getattr(resolved.backbone.load(), "token_counts", None):
        try:
            counts, most = count(find_weights(resolved), prompts.texts)
            note = f"Tokens of {resolved.backbone_name}, start and end included; at most {most}."
        except UserError as error:
            note = f"No token counts: {error}"
    rows = [
        {"class": classes[index], "prompt": text, "tokens": tokens}
        for text, index, tokens in zip(prompts.texts, prompts.class_of_prompt, counts, strict=True)
    ]
    if as_json:
        print_json(rows)
        return
    from bench.render.tables import table

    table(list(rows[0]), [list(row.values()) for row in rows])
    say(note)
