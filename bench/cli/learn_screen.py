"""`bench learn-screen`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import learning_options
from bench.cli.output import print_json, say
from bench.store.folder import find_run, to_json

if TYPE_CHECKING:
    from bench.recordings.learn_screen import Risk


@click.command()
@learning_options
def command(run: str, limit: int | None, out: str | None, results: str, as_json: bool) -> None:
    """Learn from RUN how far a screen must reach to keep the winner at a stated risk.

    RUN was made with `bench run … --strategy full-linearised --save-errors`, on images that the
    reach will not be tested on, such as a training split. Use the result with
    `bench run … --strategy screen-race --set samples=… --set reach=…`.
    """
    from bench.recordings.learn_screen import learn_screen

    learned = learn_screen(find_run(run, results), limit)
    if out:
        Path(out).write_text(to_json(learned.plain()), "utf-8")
    if as_json:
        print_json(learned.plain())
        return
    from bench.render.tables import table

    screens = learned.screens
    table(
        ["samples", *(f"first {k}, %" for k in screens[0].recall)],
        [[s.samples, *(f"{100 * r:.1f}" for r in s.recall.values())] for s in screens],
        title=f"{learned.run_id}, {learned.n_samples} images: how often the winner is among",
    )
    table(
        ["samples", *(f"risk {risk}" for risk in screens[0].risks)],
        [[s.samples, *map(_reach, s.risks.values())] for s in screens],
        title="reach (prompts kept); –: too few images for that risk",
    )
    say(f"A linearised draw cost {learned.linearisation_cost:.2f} evaluations.")


def _reach(found: Risk) -> str:
    return "–" if found.reach is None else f"{found.reach:.3f} ({found.kept:.1f})"
