"""`bench check-data`. Read a dataset once and say what is wrong with it.

Group: Score images, 3.
"""

from __future__ import annotations

import shlex
import time
from typing import Any

import click

from bench.cli.options import config_from_options, config_options
from bench.cli.output import next_steps, print_json, say
from bench.running.parts.data import DATA_SETTINGS

INTERVAL = 5.0  # seconds between lines of progress
FOUND = 4  # the exit code where something is wrong


@click.command()
@click.argument("dataset")
@config_options(["data_dir", *DATA_SETTINGS])
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool, **options: Any) -> int:
    """Read DATASET once, every split of it, and say what is wrong; 4 is then the exit code.

    Counts, images that cannot be read, images that are there twice within or across splits, classes
    without images, class names that look like ids, checksums of the original download.
    """
    from bench.discovery.loading import load_plugins
    from bench.inputs.checking import check_data
    from bench.running.resolve import resolve_dataset

    config = config_from_options(ctx, None, **options)
    data = resolve_dataset(config, load_plugins())
    told = [time.perf_counter()]

    def progress(split: str, done: int, total: int) -> None:
        if time.perf_counter() - told[0] > INTERVAL:
            told[0] = time.perf_counter()
            say(f"{split}: {done:,} of {total:,} images", err=True)

    found = check_data(data.spec, config.split, data.data_dir, data.options, progress)
    if as_json:
        print_json(
            {
                "dataset": data.name,
                "splits": found.splits,
                "classes": found.classes,
                "findings": [finding.plain() for finding in found.findings],
            }
        )
        return FOUND if found.findings else 0
    from bench.render.tables import table

    read = ", ".join(f"{name} {images:,}" for name, images in found.splits.items()) or "none"
    say(f"{data.name}: {found.classes:,} classes; images read: {read}.")
    if not found.findings:
        say("Nothing is wrong.")
        name = shlex.quote(options["dataset"])
        score = ("score it, with the same options", f"bench run {name}")
        choose = ("choose a model (backbone) for it", "bench list backbones")
        plan = ("see what it costs", f"bench run {name} --backbone NAME --dry-run")
        next_steps(*([score] if data.spec.backbone else [choose, plan]))
        return 0
    rows = [[finding.kind, finding.split, finding.said] for finding in found.findings]
    table(["what", "split", "is wrong"], rows)
    return FOUND
