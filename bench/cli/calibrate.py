"""`bench calibrate`. Learn from images what decisions are worth.

Group: Try ways to score, without a model, 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import parse_assignments
from bench.cli.output import next_steps, print_json, results_option, say
from bench.store.folder import find_run, read_manifest

if TYPE_CHECKING:
    from bench.recordings.calibrate import RiskChoice
    from bench.store.calibrations import Calibration


@click.command()
@click.argument("run")
@click.option(
    "--strategy", help="The strategy whose parameters a risk chooses (default: the backbone's)."
)
@click.option(
    "--set", "params", multiple=True, metavar="KEY=VALUE", help="A parameter that stays as it is."
)
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    run: str, strategy: str | None, params: tuple[str, ...], results: str, as_json: bool
) -> None:
    """Learn from the images of RUN what decisions about other images are worth.

    RUN is of images that will not be scored later, such as a validation split, with the same
    backbone, dataset, prompts and draws. Two things are learned and kept in its folder, where
    later runs find them:

    How often each setting of the strategy differs from the full sweep, from which
    `bench run … --risk 0.02` chooses. RUN must have recorded every error
    (`bench run … --strategy full --save-errors`).

    How probable it is that a decision is right, which `bench show RUN --statistics` and the report
    use.
    """
    from bench.recordings.calibrate import calibrate, choices

    path = find_run(run, results)
    found = calibrate(path, strategy, parse_assignments(params))
    chosen = choices(found)
    if as_json:
        print_json({**found.plain(), "risks": [each.plain() for each in chosen]})
        return
    if found.settings:
        _print_settings(found, chosen)
    else:
        say(_no_settings(path, strategy))
    fitted = [s for s in (*found.settings, *found.others) if s.fit is not None]
    if fitted:
        say(
            f"Probability that a decision is right: fitted for {len(fitted)} settings of a strategy"
            f" on {found.images} images, {fitted[-1].right} of them right with"
            f" {fitted[-1].strategy.name}."
        )
    else:
        say(
            "Probability that a decision is right: not fitted; that takes five right decisions and"
            " five wrong ones."
        )
    next_steps(*_steps(found, chosen, path, results))


def _no_settings(path: Path, strategy: str | None) -> str:
    """Return why `--risk` cannot use a calibration that has no settings."""
    from bench.errors import UserError
    from bench.recordings.recording import open_recording

    try:
        open_recording(path)
    except UserError as error:
        return f"--risk cannot use this: {error}"
    which = f"{strategy} has" if strategy else "the backbone's strategy has"
    return f"--risk cannot use this: {which} no settings to choose among."


def _steps(
    found: Calibration, choices: Sequence[RiskChoice], path: Path, results: str
) -> list[tuple[str, str]]:
    """Return what may follow: a run at the lowest risk that can be kept, and its probabilities."""
    from bench.running.verbs.command import other_images_command

    option = results_option(results)
    kept = [f"{one.risk:g}" for one in choices if one.params is not None]
    chosen = ("--strategy", found.settings[0].strategy.name) if kept else ()
    stated = ("--risk", kept[-1]) if kept else ()
    command = other_images_command(read_manifest(path), *chosen, *stated)
    what = f"score other images at a risk of {kept[-1]}" if kept else "score other images"
    steps = [(what, f"{command}{option}")]
    if any(setting.fit for setting in (*found.settings, *found.others)):
        shown = f"bench show THAT_RUN --statistics{option}"
        steps.append(("then see how probable it is that they are right", shown))
    return steps


def _print_settings(found: Calibration, choices: Sequence[RiskChoice]) -> None:
    from bench.boards.formats import assignments
    from bench.render.tables import table
    from bench.stats.risk import upper_limit

    n, sure = found.images, f"{100 * found.level:g} %"
    table(
        ["setting", "cost", "differ", f"at most ({sure}), %"],
        [
            [
                assignments({name: s.strategy.params[name] for name in found.chosen}),
                s.cost,
                s.disagreements,
                f"{100 * upper_limit(s.disagreements or 0, n, found.level):.2f}",
            ]
            for s in found.settings
        ],
        title=f"{found.settings[0].strategy.name} on {n} images of {found.split}, safest first:"
        " decisions that differ from the full sweep's",
    )
    table(
        ["--risk", "chooses", "cost"],
        [
            [each.risk, assignments(each.params), each.evaluation_equivalents_per_image]
            if each.params is not None
            else [each.risk, f"nothing: needs {each.images_needed} images", None]
            for each in choices
        ],
    )
    say(
        f"A setting is chosen if these {n} images show, with probability {sure}, that at most the"
        " stated share of decisions differs from the full sweep's, on average over images drawn as"
        " these were. It is no promise about a single image or class."
    )
