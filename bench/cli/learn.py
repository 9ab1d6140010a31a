"""`bench learn-order`. Learn which noise levels to evaluate first.

Group: Try ways to score, without a model, 4.

`bench learn-odds`. Learn when a race may stop.

Group: Try ways to score, without a model, 5.

`bench learn-screen`. Learn how wide a first screen must be.

Group: Try ways to score, without a model, 6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.boards.formats import assignments
from bench.cli.options import limit_option, results_and_json
from bench.cli.output import next_steps, print_json, say
from bench.contracts.parameters import as_text
from bench.discovery.loading import learning_strategy
from bench.recordings.learn_odds import LearnedOdds, learn_odds
from bench.recordings.learn_order import LearnedOrder, learn_order
from bench.recordings.learn_screen import LearnedScreens, ScreenRisk, learn_screen
from bench.recordings.trials import MAX_LOSS
from bench.render.tables import print_rows
from bench.running.command import other_images_command
from bench.store.fields import to_json
from bench.store.folder import find_run, read_manifest

LearnedT = TypeVar("LearnedT", LearnedOrder, LearnedOdds, LearnedScreens)


def learning_command(
    learn: Callable[[Path, int | None], LearnedT],
) -> Callable[[Callable[[Path, LearnedT], None]], click.Command]:
    """Return a decorator that makes a command of a function that prints what a run teaches."""

    def decorate(show: Callable[[Path, LearnedT], None]) -> click.Command:
        @click.command()
        @click.argument("run")
        @limit_option
        @click.option("--out", help="Also write the result to this file, as JSON.")
        @results_and_json
        @wraps(show)
        def command(
            run: str, limit: int | None, out: str | None, results: str, as_json: bool
        ) -> None:
            path = find_run(run, results)
            learned = learn(path, limit)
            if out:
                Path(out).write_text(to_json(learned.plain()), "utf-8")
            if as_json:
                print_json(learned.plain())
            else:
                show(path, learned)

        return command

    return decorate


def _run_command(path: Path, ability: str, params: dict[str, Any]) -> str:
    return other_images_command(
        read_manifest(path), params, strategy=learning_strategy(ability).name
    )


@learning_command(learn_order)
def learn_order_command(path: Path, learned: LearnedOrder) -> None:
    """Learn from the recorded errors of RUN which timesteps a race should evaluate first.

    RUN was made with `bench run … --strategy full --save-errors`, on images that the order will
    not be tested on, such as a training split. A race in the learned order may be cheaper, and may
    decide differently from the full sweep. Cost and agreement are measured by cross-validation if
    there are at least 20 images. An order is recommended only if it is shown to agree as often, to
    within 5 points, which takes about 73 images.
    """
    print_rows(
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
        next_steps(("run this race", _run_command(path, "order", learned.recommended)))


def _print_trials(learned: LearnedOrder | LearnedOdds) -> None:
    rows = []
    for trial in learned.trials:
        low, high = (100 * end for end in trial.agreement_ci95)
        agreement = f"{100 * trial.agreement:.1f} ({low:.1f}–{high:.1f})"
        rows.append([assignments(trial.params) or "nothing learned", trial.cost, agreement])
    which = (
        "5-fold cross-validation; the values shown are learned from all images"
        if learned.held_out
        else "learned from and tested on the same images, which is optimistic"
    )
    agreement = "agreement, % (95 %)"
    title = f"{learned.n_samples} images, {which}: evaluations, agreement with the full sweep"
    print_rows(["race", "cost", agreement], rows, title=title, right=[agreement])


def _advice(learned: LearnedOrder | LearnedOdds) -> str:
    if not learned.held_out:
        return (
            f"Nothing is recommended: {learned.n_samples} images are too few for cross-validation."
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
        f"Recommended: {assignments(best.params)}. On held-out images it agrees with the full sweep"
        " at least as often as a race that learned nothing. With"
        f" {learned.n_samples} images, {lost:.1f} points less cannot be excluded (95 % interval)."
        " Other data, prompts or draws need values of their own."
    )


@learning_command(learn_odds)
def learn_odds_command(path: Path, learned: LearnedOdds) -> None:
    """Learn from RUN how likely it is that a rival in a race ends ahead of the leader.

    RUN was made with `bench run … --strategy full --save-errors`, on images that the odds will not
    be tested on. A race with `--set ceiling=published --set odds=… --set delta=0.03` drops a rival
    when its probability, times the number of remaining rivals, is below 0.03. Several thresholds
    are tried, by cross-validation if there are at least 20 images.
    """
    _print_trials(learned)
    say(f"Learned from all {learned.n_samples} images: odds={as_text(tuple(learned.odds))}.")
    say(_advice(learned))
    if learned.recommended:
        params = {key: as_text(value) for key, value in learned.recommended.items()}
        next_steps(("run this race", _run_command(path, "odds", params)))


@learning_command(learn_screen)
def learn_screen_command(path: Path, learned: LearnedScreens) -> None:
    """Learn from RUN how far a screen must reach to keep the winner at a stated risk.

    RUN was made with `bench run … --strategy full-linearised --save-errors`, on images that the
    reach will not be tested on, such as a training split. Use the result with
    `bench run … --strategy screen-race --set samples=… --set reach=…`.
    """
    screens = learned.screens
    print_rows(
        ["samples", *(f"first {k}, %" for k in screens[0].recall)],
        [[s.samples, *(f"{100 * r:.1f}" for r in s.recall.values())] for s in screens],
        title=f"{learned.run_id}, {learned.n_samples} images: how often the winner is among",
    )
    print_rows(
        ["samples", *(f"risk {risk}" for risk in screens[0].risks)],
        [[s.samples, *map(_reach_text, s.risks.values())] for s in screens],
        title="reach (prompts kept); –: too few images for that risk",
    )
    say(f"A linearised draw cost {learned.linearisation_cost:.2f} evaluations.")
    # Suggest the lowest risk that any screen meets, and for it the screen with the fewest prompts.
    safest = min(
        (
            (float(risk), at_risk.kept, screen.samples, at_risk.reach)
            for screen in screens
            for risk, at_risk in screen.risks.items()
            if at_risk.reach is not None
        ),
        default=None,
    )
    if safest is not None:
        risk, _, samples, reach = safest
        command = _run_command(path, "reach", {"samples": samples, "reach": f"{reach:.3f}"})
        next_steps((f"screen at a risk of {risk:g}", command))


def _reach_text(risk: ScreenRisk) -> str:
    return "–" if risk.reach is None else f"{risk.reach:.3f} ({risk.kept:.1f})"
