"""`bench learn`. Learn a strategy's settings, risks and probabilities.

Group: Try ways to score, without a model, 3.
"""

from pathlib import Path
from typing import Annotated, Any

from bench.cli.command import Params, Results, command, end_with_json
from bench.cli.output import named_run, next_steps, results_argument, say
from bench.contracts.parameters import as_text
from bench.recordings.learn import (
    MAX_LOSS,
    Learned,
    LearnedSettings,
    choose_recommended,
    learn,
)
from bench.reports.facts import assignments, percent_text, points_text
from bench.reports.terminal.tables import print_rows
from bench.running.command import other_images_command
from bench.stats.calibration.risk import upper_limit
from bench.store.calibrations import CalibratedSetting, Calibration
from bench.store.folder import read_manifest
from bench.store.formats.documents import RiskChoice

LOSES = ("costs more", "agrees less often")  # verdicts on a setting that is worse than none


@command()
def learn_command(
    run: str,
    what: tuple[str, ...] = (),
    *,
    strategy: Annotated[str | None, "The strategy that learns (default: the backbone's)."],
    params: Annotated[Params, "A parameter of the strategy that is not learned; repeat for more."],
    results: Results,
) -> None:
    """Learn from RUN what a strategy can learn, for later runs on other images.

    RUN is on images that will not be scored later, such as a validation split, with the same
    backbone, dataset, prompts and draws. WHAT is a learned parameter, such as deviation of a
    race or reach of a screen, or calibration; without it, all that RUN can teach is learned.
    Parameters need the error of every cell: bench run … --strategy full --save-errors.

    Each learned setting is tried on images that it was not learned from. It is recommended only
    if it costs less than learning nothing and is shown to decide as the full sweep as often, or
    if it is shown to do so more often.

    The calibration is stored with RUN, where later runs find it: how often each setting of the
    strategy differs from the full sweep, from which bench run --risk 0.02 chooses, and how
    probable it is that a decision is right.
    """
    path = named_run(run, results)
    learned = learn(path, what, strategy, params)
    end_with_json(learned.plain())
    steps = []
    if (trials := learned.settings) is not None:
        _print_settings(trials)
        if trials.recommended is not None:
            params = {name: as_text(value) for name, value in trials.recommended.items()}
            score = other_images_command(read_manifest(path), params, strategy=trials.strategy)
            steps.append(("score other images with what was learned", score))
    if learned.not_learned is not None:
        say(f"No settings were learned: {learned.not_learned}")
    if learned.calibration is not None:
        _print_calibration(learned)
        steps += _steps_of_calibration(path, learned, results)
    if steps:
        next_steps(*steps)


def _print_settings(learned: LearnedSettings) -> None:
    rows, best = [], choose_recommended(learned.settings)
    for trial in (learned.nothing_learned, *learned.settings):
        agreement = percent_text(trial.agreement, trial.agreement_ci95)
        verdict: str = "recommended" if trial == best else trial.verdict or ""
        if trial.verdict in LOSES:
            verdict = f"loses: {trial.verdict}"
        rows.append([trial.name, assignments(trial.params), trial.cost, agreement, verdict])
    tried_on = "the same images, which is optimistic"
    if learned.held_out:
        tried_on = "images that were left out (5-fold cross-validation)"
    title = f"{learned.strategy}, learned from {learned.n_samples} images; cost and agreement"
    column = "agreement, % (95 %)"
    head = ["learned", "setting", "cost", column, ""]
    print_rows(head, rows, f"{title} with the full sweep on {tried_on}", right=[column])
    if learned.untried:
        say(f"Too few images to try: {', '.join(learned.untried)}.")
    say(_advice(learned))


def _advice(learned: LearnedSettings) -> str:
    n = learned.n_samples
    if not learned.held_out:
        return f"Nothing is recommended: {n} images are too few for cross-validation."
    best = choose_recommended(learned.settings)
    if learned.recommended is None or best is None:
        return (
            "Nothing is recommended: no setting is cheaper than learning nothing and shown to agree"
            f" with the full sweep as often, to within {100 * MAX_LOSS:g} points (95 % interval,"
            f" {n} images), or shown to agree more often."
        )
    change = points_text(best.difference.estimate, best.difference.interval)
    return (
        f"Recommended: {assignments(learned.recommended)}, for {best.cost:.1f} instead of"
        f" {learned.nothing_learned.cost:.1f} evaluations per image. On held-out images its"
        f" agreement with the full sweep differs by {change} points (95 % interval). Other data,"
        " prompts or draws need values of their own."
    )


def _print_calibration(learned: Learned) -> None:
    """Print what `--risk` would choose, and how good the fitted probabilities are."""
    calibration = learned.calibration
    assert calibration is not None
    if calibration.settings:
        _print_risks(calibration, learned.risks)
    elif learned.not_learned is None:
        say(f"--risk cannot use this: {learned.strategy} has no settings to choose among.")
    start, fitted = "Probability that a decision is right:", _fitted(calibration)
    if not fitted:
        say(f"{start} not fitted; that takes five right decisions and five wrong ones.")
        return
    last, skill = fitted[-1], fitted[-1].held_out_skill
    text = (
        f"{start} fitted for {len(fitted)} setting{'s' * (len(fitted) > 1)} on"
        f" {calibration.images} images, {last.right} of them right with {last.strategy.name}."
    )
    if skill is None:
        text += " There are too few right or wrong decisions to try it on others."
    else:
        lower = f"lower by {100 * skill:.0f} % than" if skill > 0 else "no lower than"
        text += " It loses: on" if skill <= 0 else " On"
        text += (
            f" images that were not fitted, its logarithmic loss is {lower} that of a constant,"
            " the accuracy."
        )
    say(text)


def _fitted(calibration: Calibration) -> list[CalibratedSetting]:
    """Return the settings for which probabilities were fitted."""
    return [s for s in (*calibration.settings, *calibration.others) if s.fit is not None]


def _print_risks(calibration: Calibration, choices: list[RiskChoice]) -> None:
    """Print how often each setting differs from the full sweep, and what each risk chooses."""
    n, level = calibration.images, f"{100 * calibration.level:g} %"
    full_sweep_cost = calibration.others[0].cost
    rows: list[list[Any]] = []
    for setting in calibration.settings:
        params = {name: setting.strategy.params[name] for name in calibration.chosen}
        limit = 100 * upper_limit(setting.disagreements or 0, n, calibration.level)
        rows.append([assignments(params), setting.cost, setting.disagreements, f"{limit:.2f}"])
    print_rows(
        ["setting", "cost", "differ", f"at most ({level}), %"],
        rows,
        title=f"{calibration.settings[0].strategy.name} on {n} images of {calibration.split},"
        " safest first: decisions that differ from the full sweep's",
    )
    rows = []
    for choice in choices:
        text, cost = f"nothing: needs {choice.images_needed} images", None
        if choice.params is not None:
            text, cost = assignments(choice.params), choice.evaluation_equivalents_per_image
        saved = None if cost is None else f"{100 * (1 - cost / full_sweep_cost):.0f}"
        rows.append([f"{choice.risk:g}", text, cost, saved])
    print_rows(["--risk", "chooses", "cost", "saved of the full sweep, %"], rows)
    say(
        f"A setting is chosen if these {n} images show, with probability {level}, that at most the"
        " stated share of decisions differs from the full sweep's, on average over images drawn as"
        " these were. It is no promise about a single image or class."
    )


def _steps_of_calibration(path: Path, learned: Learned, results: str) -> list[tuple[str, str]]:
    """Return steps that use the lowest risk which costs less than a sweep, and the probabilities.

    Probabilities that are not shown to be better than a constant are not used.
    """
    calibration = learned.calibration
    assert calibration is not None
    option, purpose, risk = results_argument(results), "score other images", None
    for choice in learned.risks:  # the largest risk first
        cost = choice.evaluation_equivalents_per_image
        if cost is not None and cost < calibration.others[0].cost:
            risk = f"{choice.risk:g}"
            purpose = f"score other images at a risk of {risk}"
    fitted = _fitted(calibration)
    useful = bool(fitted) and (fitted[-1].held_out_skill or 0) > 0
    if not (risk or useful):
        return []
    strategy = learned.strategy if risk else None
    score = other_images_command(read_manifest(path), strategy=strategy, risk=risk)
    steps = [(purpose, f"{score}{option}")]
    if useful:
        show = f"bench show THAT_RUN --statistics{option}"
        steps.append(("then see how probable it is that they are right", show))
    return steps
