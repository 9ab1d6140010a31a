"""`bench learn-order`."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import learning_options
from bench.cli.output import next_steps, print_json, say
from bench.store.folder import find_run, read_manifest, to_json


@click.command()
@learning_options
def command(run: str, limit: int | None, out: str | None, results: str, as_json: bool) -> None:
    """Learn from the recorded errors of RUN which timesteps a race should ask for first.

    RUN was made with `bench run … --strategy full --save-errors`, on images that the order will
    not be tested on, such as a training split. Use the result with
    `bench run … --strategy race --set order=…`.
    """
    from bench.recordings.learn_order import learn_order

    path = find_run(run, results)
    learned = learn_order(path, limit)
    if out:
        Path(out).write_text(to_json(learned.plain()), "utf-8")
    if as_json:
        print_json(learned.plain())
        return
    from bench.render.tables import table
    from bench.running.command import other_images_command

    table(
        ["timesteps", "evaluations per image on these alone, estimated"],
        [[part.timesteps, part.cost] for part in learned.parts],
        title=f"{learned.run_id}, {learned.n_samples} images",
    )
    say(
        f"order={learned.order}: a race takes {learned.cost:.1f} evaluations per image in"
        f" this order, {learned.cost_even:.1f} in the even one, as `bench replay` of these"
        f" images does. With first=1 deviation={learned.deviation:g} it takes"
        f" {learned.cost_with_deviation:.1f}, in the even order with first=1"
        f" deviation={learned.deviation_even:g} {learned.cost_even_with_deviation:.1f}; a lower"
        f" delta is safer. Largest difference of two errors: {learned.span:.3g}."
    )
    chosen = ("--strategy", "race", "--set", f"order={learned.order}")
    next_steps(("race in this order", other_images_command(read_manifest(path), *chosen)))
