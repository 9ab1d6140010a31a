"""`bench learn-screen`. Learn how far a first look must reach.

Group: Try ways to score, without a model, 5.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import learning_options
from bench.cli.output import next_steps, print_json, say
from bench.store.folder import find_run, read_manifest, to_json

if TYPE_CHECKING:
    from bench.recordings.learn_screen import LearnedScreens, Risk


@click.command()
@learning_options
def command(run: str, limit: int | None, out: str | None, results: str, as_json: bool) -> None:
    """Learn from RUN how far a screen must reach to keep the winner at a stated risk.

    RUN was made with `bench run … --strategy full-linearised --save-errors`, on images that the
    reach will not be tested on, such as a training split. Use the result with
    `bench run … --strategy screen-race --set samples=… --set reach=…`.
    """
    from bench.recordings.learn_screen import learn_screen

    path = find_run(run, results)
    learned = learn_screen(path, limit)
    if out:
        Path(out).write_text(to_json(learned.plain()), "utf-8")
    if as_json:
        print_json(learned.plain())
        return
    from bench.discovery.loading import learning
    from bench.render.tables import table
    from bench.running.verbs.command import other_images_command

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
    if found := _safest(learned):
        risk, samples, reach = found
        given = ("--set", f"samples={samples}", "--set", f"reach={reach:.3f}")
        chosen = ("--strategy", learning("reach").name, *given)
        command = other_images_command(read_manifest(path), *chosen)
        next_steps((f"screen at a risk of {risk}", command))


def _safest(learned: LearnedScreens) -> tuple[str, int, float] | None:
    """Return the lowest risk that is known, with the screen that keeps the fewest prompts there.

    Returns:
        The risk, the screen's draws and its reach; None: there were too few images for any risk.
    """
    known = [
        (float(risk), found.kept, screen.samples, found.reach)
        for screen in learned.screens
        for risk, found in screen.risks.items()
        if found.reach is not None
    ]
    if not known:
        return None
    risk, _, samples, reach = min(known)
    return f"{risk:g}", samples, reach


def _reach(found: Risk) -> str:
    return "–" if found.reach is None else f"{found.reach:.3f} ({found.kept:.1f})"
