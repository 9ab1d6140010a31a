"""Describe a run in sentences: its question, accuracy, repeatability, audit and stated risk."""

from typing import NamedTuple

from bench.contracts.dataset import asks_for_images
from bench.contracts.specs import FITTED, UNDECLARED, UNKNOWN
from bench.contracts.strategy import Strategy, comparison_words
from bench.reports.facts import percent_text
from bench.reports.run_view import RunView
from bench.running.parts.decision import strategy_of
from bench.stats.calibration.agreement import Audit, Repeatability, repeatability
from bench.stats.calibration.probability import Probability
from bench.stats.calibration.risk import keeps, most_differing
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import GenerationCost, Manifest, Sweep
from bench.store.formats.identity import CalibratedOn
from bench.store.summary import Repeated, Summary


class Opening(NamedTuple):
    """Sentences for readers who do not know the toolkit's terms; the last two may be empty."""

    question: str  # the task, the images and the model
    accuracy: str  # the accuracy, and the answers to questions of `--until`
    interval: str  # the interval of the accuracy
    certainty: str  # how other noise or the full sweep would change the decisions
    promises: str  # how far the answers to questions can be trusted


def make_opening(run: RunView) -> Opening:
    """Return the sentences about the decided images of a run."""
    answers = [question.answer for question in run.questions if question.answer]
    accuracy = " ".join([_accuracy(run), *(answer.sentence for answer in answers)])
    promises = " ".join(dict.fromkeys(answer.promise for answer in answers))
    noise = noise_sentence(run.manifest, run.decided, run.again, audited=run.audit is not None)
    audit = audit_sentence(run.audit) if run.audit else None
    certainty = " ".join(filter(None, [noise, audit]))
    return Opening(_question(run.manifest, run.n), accuracy, _interval(run), certainty, promises)


def _question(manifest: Manifest, n: int) -> str:
    dataset, identity = manifest.dataset, manifest.identity
    classes = f"{len(manifest.classes):,} class{'es' * (len(manifest.classes) != 1)}"
    question, image = f"Which of {classes} does each image show?", "image"
    if (items := manifest.items) is not None:
        one_text = asks_for_images(items.images, items.texts)
        fits = "images fits each text" if one_text else "texts fits each image"
        question, image = f"Which of its {fits}?", "item"
    counted, were = f"{n:,} {image}{'s' * (n != 1)}", "was" if n == 1 else "were"
    blind = f", with the images destroyed ({identity.control})" if identity.control else ""
    blind += f", with the images corrupted ({identity.corrupt})" if identity.corrupt else ""
    return (
        f"{question} {counted} of {dataset.name}/{dataset.split} {were} put to"
        f" {manifest.backbone.name}, {_trained(manifest.backbone.trained_on)}{blind}."
    )


def _trained(trained_on: str | None) -> str:
    if trained_on is None:
        return "a model that was not trained on this dataset"
    if trained_on == FITTED:
        return "a model that was fitted on other images of this dataset"
    if trained_on in (UNKNOWN, UNDECLARED):
        return "a model whose training data is not known"
    return f"a model that was trained on {trained_on}"


def _accuracy(run: RunView) -> str:
    right, chance = int(run.decided.correct.sum()), run.summary.metrics.chance
    guessing = "" if chance is None else f"; guessing would be right for {percent_text(chance)} %"
    return f"It was right for {right:,} of {run.n:,} ({percent_text(right / run.n)} %){guessing}."


def _interval(run: RunView) -> str:
    """Return the sentence with the interval, anytime-valid if a question ended the run."""
    low, high = run.stop.interval if run.stop else run.summary.metrics.accuracy_ci95
    valid = ", valid although the result ended the run" if run.stop else ""
    held = "this noise and these prompts" if run.manifest.on_draws else "these prompts"
    return (
        f"Of all images of this kind, with {held}, it would be right for {percent_text(low)} to"
        f" {percent_text(high)} % (95 % interval{valid})."
    )


# Above this share of changes, the estimate is too low: nearly all answers are ties that change.
TIED = 0.7


def estimate_repeatability(manifest: Manifest, decided: Decisions) -> Repeatability | None:
    """Estimate how many decisions would change in a run with other noise.

    None if nothing is random, the strategy stops early or is not installed, or no margin has a
    standard error.
    """
    strategy = strategy_of(manifest) if manifest.on_draws else None
    if strategy is None or not strategy.same_draws:
        return None
    noise = manifest.identity.scoring.noise or ""
    return repeatability(decided, own_noise=noise.endswith(" per image"))


def level_sentence(strategy: Strategy | None) -> str:
    """Return what the level of a strategy's test means for an answer; "" without a test."""
    if strategy is None or strategy.level is None:
        return ""
    return strategy.level_words or comparison_words(strategy.level)


def noise_sentence(
    manifest: Manifest, decided: Decisions, again: Repeated | None, audited: bool = True
) -> str | None:
    """Return a sentence about the changes under other noise, or None if nothing is random.

    Unless the run was `audited`, it names the option that measures the agreement with the sweep.
    """
    if not manifest.on_draws:
        return None
    if again is not None:
        low, high = (f"{end:.0f}" for end in again.expected_ci95)
        return (
            f"Of {again.images:,} images that were chosen at random and decided again with other"
            f" random noise, {len(again.changed):,} changed: about {_count(again.expected)} of"
            f" {again.of:,} answers would (95 % interval {low} to {high})."
        )
    estimate = estimate_repeatability(manifest, decided)
    if estimate is not None:
        rest = f"; of the other {estimate.unknown:,} nothing is known" if estimate.unknown else ""
        least = "at least about" if estimate.flip_share > TIED else "about"
        return (
            f"Other random noise would change {least} {_count(estimate.expected_flips)} of"
            f" {estimate.n:,} answers{rest}."
        )
    words = level_sentence(strategy_of(manifest))
    if words and manifest.sweep:
        words = f"Except for images that were swept: {words[0].lower()}{words[1:]}"
    unknown = "How many answers would change with other random noise"
    measured = "`bench run … --again 60` measures it"
    if words and not audited:
        unknown = "How often this agrees with the full sweep, and with other random noise,"
        measured = "`bench run … --audit 30 --again 60` measures both"
    how = "" if manifest.replayed_from else f" ({measured})"
    return f"{words} {unknown} is not known{how}.".strip()


def audit_sentence(audit: Audit) -> str:
    """Return the agreement of audited images with the full sweep, and its interval for all."""
    low, high = (percent_text(end) for end in audit.agreement_ci95)
    tied = ""
    if audit.same_or_tied is not None and audit.same_or_tied_ci95 is not None:
        at_least = percent_text(int(1000 * audit.same_or_tied_ci95[0]) / 1000)
        tied = (
            f" Counting a class that is worse by at most {audit.tie:g} as the same:"
            f" {audit.same_or_tied:,}, at least {at_least} %."
        )
    return (
        f"Of {audit.images:,} images that were chosen at random and swept with every prompt on"
        f" every draw, {audit.same:,} are decided as by the full sweep: {low} to {high} % of all"
        f" {audit.of:,} answers are (95 % interval, valid at every number of images).{tied}"
    )


def noise_details(manifest: Manifest, decided: Decisions) -> str | None:
    """Return further estimates for other noise, or None if there are none."""
    estimate = estimate_repeatability(manifest, decided)
    if estimate is None:
        return None
    stderr = (
        "is not known, since all images share the noise: run several seeds"
        if estimate.accuracy_stderr is None
        else f"is {estimate.accuracy_stderr:.4f}"
    )
    return (
        f"Other random noise: {estimate.doubtful:,} of {estimate.n:,} answers would change with a"
        f" probability above 5 %. The standard deviation of the accuracy over seeds {stderr}."
    )


def _count(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def probability_sentence(skill: Probability) -> str:
    """Return proper scores and calibration error of the probabilities as a sentence."""
    text = (
        f"Probabilities fitted on {skill.calibrated_images:,} other images ({skill.calibrated_on}):"
        f" Brier score {skill.brier:.3f}, logarithmic loss {skill.log_loss:.3f}"
    )
    if skill.brier_skill is not None and skill.log_loss_skill is not None:
        text += (
            f"; skill over the base rate {skill.accuracy:.3f}: {skill.brier_skill:+.3f} and"
            f" {skill.log_loss_skill:+.3f} (0: no better than always saying the base rate)"
        )
    if skill.ece is None or skill.ece_ci95 is None:
        return f"{text}. All probabilities are equal, so nothing is known of single decisions."
    low, high = skill.ece_ci95
    return (
        f"{text}. Calibration error, bins of equal mass: {skill.ece:.3f} (95 % interval"
        f" {low:.3f}–{high:.3f}; exact probabilities would show {skill.ece_if_calibrated:.3f} on"
        f" {skill.n:,} images)."
    )


def risk_warning(audit: Audit | None, stated: CalibratedOn | None) -> str | None:
    """Return a warning if an audit contradicts or does not confirm the stated risk, else None."""
    if audit is None or stated is None or stated.risk >= 1 - audit.agreement_ci95[0]:
        return None
    low, high = (f"{100 * (1 - end):.3g}" for end in audit.agreement_ci95[::-1])
    risk = f"the stated risk of {100 * stated.risk:g} %"
    if audit.contradicts(stated.risk):
        return f"The audit contradicts {risk}: {low} to {high} % of the decisions differ."
    return f"The audit does not show {risk} yet: up to {high} % of the decisions may differ."


def risk_sentence(
    stated: CalibratedOn | None, sweep: Sweep | None = None, summary: Summary | None = None
) -> str:
    """Return the promise of a run with a stated risk, or "" if none was stated.

    `sweep` is given if the risk was calibrated on images of the run itself. `summary` is the run's,
    for the cost of the images that were not swept.
    """
    if stated is None:
        return ""
    if sweep is not None and stated.of is not None:
        return _risk_of_split(stated, stated.of, sweep, summary)
    return (
        f"Stated risk: at most {100 * stated.risk:g} % of the decisions differ from those of the"
        f" full sweep. The parameters were chosen on {stated.images:,} other images"
        f" ({stated.split}, {stated.run_id}), where {stated.disagreements} differed. With"
        f" probability {100 * stated.level:g} % over the choice of these images, the risk is kept"
        " on average over images drawn as they were. It is no promise for a single image or class."
    )


def _risk_of_split(stated: CalibratedOn, n: int, sweep: Sweep, summary: Summary | None) -> str:
    """Return the promise of a risk that was calibrated on images of the run's own `n`."""
    share, swept = f"{100 * stated.risk:g} %", stated.images
    differ = f"{stated.disagreements:,} of them"
    passed = keeps(stated.disagreements, swept, stated.risk, stated.level, n)
    drawn = (
        f"Stated risk {share}: {swept:,} of the split's {n:,} images, drawn uniformly, were swept"
        f" ({sweep.evaluation_equivalents_per_image * swept:,.0f} evaluation equivalents,"
        f" {stated.run_id})"
    )
    if passed:
        text = (
            f"{drawn}; these parameters decide {differ} otherwise. So, with probability"
            f" {100 * stated.level:g} % over the draw, at most {most_differing(stated.risk, n):,}"
            f" of the {n:,} decisions differ from those of the full sweep on the same draws. It is"
            " no promise for a single image or class."
        )
    else:
        text = (
            f"{drawn}; even the safest parameters decide {differ} otherwise. So no race keeps the"
            " risk, and the strategy that was chosen beforehand (--risk-else) decided the others."
        )
    if summary is not None:
        by_sweep = summary.decided_by.sweep if summary.decided_by else 0
        images = summary.dataset.n_samples
        cost = summary.cost.equivalents_per_image * images
        cost -= sweep.evaluation_equivalents_per_image * by_sweep
        if others := images - by_sweep:
            text += f" The other {others:,} images took {cost / others:,.1f} each."
    return f"{text} {_other_risks(stated, sweep)}"


def _other_risks(stated: CalibratedOn, sweep: Sweep) -> str:
    """Return what other risks would cost by the same sweep, as a sentence."""
    others = []
    for choice in sweep.choices:
        cost = choice.evaluation_equivalents_per_image
        if choice.risk == stated.risk:
            continue
        if choice.params is None or cost is None:
            others.append(f"{choice.risk:g} needs {choice.images_needed or 0:,} swept images")
        else:
            params = " ".join(f"{name}={value:g}" for name, value in choice.params.items())
            others.append(f"{choice.risk:g} allows {params}, at {cost:,.1f} per image")
    return f"On the same images a risk of {'; '.join(others)}."


def generation_sentence(generation: GenerationCost, n: int) -> str:
    """Return what generating the images to learn from took, in all and for each of `n` images."""
    seconds, flop = generation.seconds, generation.flop
    operations = "" if flop is None else f" ({flop / 1e12:,.3g} TFLOP)"
    each = "" if flop is None else f"{flop / n / 1e12:,.2g} TFLOP and "
    return (
        f"Generated once: {generation.images:,} images to learn from,"
        f" {generation.evaluations:,} evaluations{operations}, {seconds:,.1f} s. Over {n:,} images"
        f" that is {each}{seconds / n:,.2g} s an image, which the cost above does not include."
    )
