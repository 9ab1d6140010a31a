"""`bench learn-order`. Learn which noise levels to ask first.

Group: Try ways to score, without a model, 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import learning_options
from bench.cli.output import next_steps, print_json, say
from bench.store.folder import find_run, read_manifest, to_json

if TYPE_CHECKING:
    from bench.recordings.learn_order import LearnedOrder


@click.command()
@learning_options
def command(run: str, limit: int | None, out: str | None, results: str, as_json: bool) -> None:
    """Learn from the recorded errors of RUN which timesteps a race should ask for first.

    RUN was made with `bench run … --strategy full --save-errors`, on images that the order will
    not be tested on, such as a training split. A race in the learned order may be cheaper and
    decide otherwise than the full sweep. Both are measured, on images that it was not learned
    from where there are 20 or more. Only what is shown to agree as often, to within 5 points, is
    recommended; that takes about 73 images.
    """
    from bench.recordings.learn_order import learn_order

    path = find_run(run, results)
    learned = learn_order(path, limit)
    if out:
        Path(out).write_text(to_json(learned.plain()), "utf-8")
    if as_json:
        print_json(learned.plain())
        return
    from bench.discovery.loading import learning
    from bench.render.tables import table
    from bench.running.verbs.command import other_images_command

    table(
        ["timesteps", "evaluations per image on these alone, estimated"],
        [[part.timesteps, part.cost] for part in learned.parts],
        title=f"{learned.run_id}, {learned.n_samples} images",
    )
    _print_trials(learned)
    say(
        f"Learned from all {learned.n_samples} images: order={learned.order},"
        f" deviation={learned.deviation:g} in this order and {learned.deviation_even:g} in the even"
        " one. On these images themselves, as `bench replay` does, a race takes"
        f" {learned.cost_even:.1f} evaluations per image, with the order {learned.cost:.1f}, with"
        f" the deviation {learned.cost_even_with_deviation:.1f}, with both"
        f" {learned.cost_with_deviation:.1f}. Largest difference of two errors: {learned.span:.3g}."
    )
    say(_advice(learned))
    if learned.recommended:
        words = [w for key, one in learned.recommended.items() for w in ("--set", f"{key}={one}")]
        chosen = ("--strategy", learning("order").name, *words)
        next_steps(("race so", other_images_command(read_manifest(path), *chosen)))


def _print_trials(learned: LearnedOrder) -> None:
    from bench.boards.formats import assignments
    from bench.render.tables import table

    rows = []
    for trial in learned.trials:
        low, high = (100 * end for end in trial.agreement_ci95)
        agreement = f"{100 * trial.agreement:.1f} ({low:.1f}–{high:.1f})"
        rows.append([assignments(trial.params) or "nothing learned", trial.cost, agreement])
    which = (
        "each fifth decided with what the other images teach; the values shown are those that all"
        " images teach"
        if learned.held_out
        else "decided with what they teach themselves, which flatters"
    )
    agreement = "agreement, % (95 %)"
    title = f"{learned.n_samples} images, {which}: evaluations, agreement with the full sweep"
    table(["race", "cost", agreement], rows, title=title, right=[agreement])


def _advice(learned: LearnedOrder) -> str:
    """Return what the trials recommend, and how much it may lose."""
    from bench.boards.formats import assignments
    from bench.recordings.order_trials import MAX_LOSS

    if not learned.held_out:
        return (
            f"Nothing is recommended: {learned.n_samples} images are too few to learn from some and"
            " try on others."
        )
    if learned.recommended is None:
        return (
            "Nothing is recommended: nothing that was learned is cheaper and shown to agree with"
            " the full sweep as often as a race that learned nothing, to within"
            f" {100 * MAX_LOSS:g} points (95 % interval, {learned.n_samples} images)."
        )
    best = next(trial for trial in learned.trials if trial.params == learned.recommended)
    lost = 100 * max(0.0, -best.difference_ci95[0])
    return (
        f"Recommended: {assignments(best.params)}. On images that it was not learned from it agrees"
        " with the full sweep at least as often as a race that learned nothing;"
        f" {learned.n_samples} images leave room for {lost:.1f} points less (95 % interval)."
        " Other data, prompts or draws need an order and a deviation of their own."
    )
