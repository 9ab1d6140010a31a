"""`bench calibrate`. Calibrate risks and probabilities for later runs.

Group: Try ways to score, without a model, 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench.boards.formats import assignments
from bench.cli.options import results_and_json, set_option
from bench.cli.output import next_steps, print_json, results_argument, say
from bench.errors import UserError
from bench.recordings.calibrate import calibrate
from bench.recordings.recording import open_draws
from bench.render.tables import print_rows
from bench.running.command import other_images_command
from bench.running.preparing.risk import risk_choices
from bench.stats.risk import upper_limit
from bench.store.calibrations import Calibration
from bench.store.documents import RiskChoice
from bench.store.folder import find_run, read_manifest


@click.command()
@click.argument("run")
@click.option(
    "--strategy", help="The strategy whose parameters a risk chooses (default: the backbone's)."
)
@set_option()
@results_and_json
def calibrate_command(
    run: str, strategy: str | None, params: dict[str, str], results: str, as_json: bool
) -> None:
    """Calibrate risks and probabilities on the images of RUN, for later runs.

    RUN is on images that will not be scored later, such as a validation split, with the same
    backbone, dataset, prompts and draws. Two things are learned and stored in its folder, where
    later runs find them:

    How often each setting of the strategy differs from the full sweep, from which
    `bench run … --risk 0.02` chooses. RUN must have recorded every error
    (`bench run … --strategy full --save-errors`).

    How probable it is that a decision is right, which `bench show RUN --statistics` and the report
    use.
    """
    path = find_run(run, results)
    learned = calibrate(path, strategy, params)
    chosen = risk_choices(learned)
    if as_json:
        print_json({**learned.plain(), "risks": [choice.plain() for choice in chosen]})
        return
    if learned.settings:
        _print_settings(learned, chosen)
    else:
        say(_no_settings_message(path, strategy))
    fitted = [s for s in (*learned.settings, *learned.others) if s.fit is not None]
    if fitted:
        say(
            f"Probability that a decision is right: fitted for {len(fitted)} settings of a strategy"
            f" on {learned.images} images, {fitted[-1].right} of them right with"
            f" {fitted[-1].strategy.name}."
        )
    else:
        say(
            "Probability that a decision is right: not fitted; that takes five right decisions and"
            " five wrong ones."
        )
    # Suggest a run at the lowest risk for which there are enough images.
    option = results_argument(results)
    risks = [f"{choice.risk:g}" for choice in chosen if choice.params is not None]
    settings: dict[str, Any] = {}
    what = "score other images"
    if risks:
        settings = {"strategy": learned.settings[0].strategy.name, "risk": risks[-1]}
        what = f"score other images at a risk of {risks[-1]}"
    steps = [(what, f"{other_images_command(read_manifest(path), **settings)}{option}")]
    if fitted:
        shown = f"bench show THAT_RUN --statistics{option}"
        steps.append(("then see how probable it is that they are right", shown))
    next_steps(*steps)


def _no_settings_message(path: Path, strategy: str | None) -> str:
    try:
        open_draws(path)
    except UserError as error:
        return f"--risk cannot use this: {error}"
    which = f"{strategy} has" if strategy else "the backbone's strategy has"
    return f"--risk cannot use this: {which} no settings to choose among."


def _print_settings(learned: Calibration, choices: Sequence[RiskChoice]) -> None:
    n, level = learned.images, f"{100 * learned.level:g} %"
    rows: list[list[Any]] = []
    for setting in learned.settings:
        params = {name: setting.strategy.params[name] for name in learned.chosen}
        limit = 100 * upper_limit(setting.disagreements or 0, n, learned.level)
        rows.append([assignments(params), setting.cost, setting.disagreements, f"{limit:.2f}"])
    print_rows(
        ["setting", "cost", "differ", f"at most ({level}), %"],
        rows,
        title=f"{learned.settings[0].strategy.name} on {n} images of {learned.split}, safest first:"
        " decisions that differ from the full sweep's",
    )
    rows = []
    for choice in choices:
        params_text = f"nothing: needs {choice.images_needed} images"
        if choice.params is not None:
            params_text = assignments(choice.params)
        rows.append([choice.risk, params_text, choice.evaluation_equivalents_per_image])
    print_rows(["--risk", "chooses", "cost"], rows)
    say(
        f"A setting is chosen if these {n} images show, with probability {level}, that at most the"
        " stated share of decisions differs from the full sweep's, on average over images drawn as"
        " these were. It is no promise about a single image or class."
    )
