"""Describe a run in sentences: its question, accuracy, and repeatability with other noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from bench.contracts.specs import FITTED, UNDECLARED, UNKNOWN
from bench.engine.asking import CheckedStrategy
from bench.reports.formats import percent_text
from bench.running.classify import Answer
from bench.running.second import strategy_of
from bench.stats.agreement import (
    FEWEST_DRAWS,
    Audit,
    Repeatability,
    flip_probability,
    repeatability,
)
from bench.stats.probability import Probability
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.questions import AskedQuestion, QuestionAnswer, ending_answer
from bench.store.summary import Again, Summary


@dataclass(frozen=True)
class Opening:
    """Three sentences for readers who do not know the toolkit's terms."""

    question: str  # what was asked, of which images and of which model
    accuracy: str  # with the answers to questions, if there are any
    certainty: str  # the interval, and what other noise or an audit shows

    @override
    def __str__(self) -> str:
        return f"{self.question} {self.accuracy} {self.certainty}"


def make_opening(
    manifest: Manifest,
    summary: Summary,
    decided: Decisions,
    again: Again | None = None,
    audit: Audit | None = None,
    questions: Sequence[AskedQuestion] = (),
) -> Opening:
    """Return the sentences about a run so far; answers to `questions` follow the accuracy."""
    answers = [question.answer for question in questions if question.answer]
    parts = (
        _interval(manifest, summary, ending_answer(questions, len(decided))),
        noise_sentence(manifest, decided, again),
        audit and audit_sentence(audit),
    )
    certainty = " ".join(part for part in parts if part)
    accuracy = " ".join([_accuracy(summary, decided), *(answer.sentence for answer in answers)])
    return Opening(_question(manifest, len(decided)), accuracy, certainty)


def _question(manifest: Manifest, n: int) -> str:
    dataset, control = manifest.dataset, manifest.identity.control
    if manifest.items is None:
        question = f"Which of {len(manifest.classes):,} classes does each image show?"
        things = "image" if n == 1 else "images"
    else:
        question = "Which of its texts fits each image?"
        things = "item" if n == 1 else "items"
    blind = f", with the images destroyed ({control})" if control else ""
    corrupt = manifest.identity.corrupt
    blind += f", with the images corrupted ({corrupt})" if corrupt else ""
    return (
        f"{question} {n:,} {things} of {dataset.name}/{dataset.split} {'was' if n == 1 else 'were'}"
        f" put to {manifest.backbone.name}, {_trained(manifest.backbone.trained_on)}{blind}."
    )


def _trained(trained_on: str | None) -> str:
    if trained_on is None:
        return "a model that was not trained on this dataset"
    if trained_on == FITTED:
        return "a model that was fitted on other images of this dataset"
    if trained_on in (UNKNOWN, UNDECLARED):
        return "a model whose training data is not known"
    return f"a model that was trained on {trained_on}"


def _accuracy(summary: Summary, decided: Decisions) -> str:
    right, n = int(decided.correct.sum()), len(decided)
    chance = summary.metrics.chance
    guessing = "" if chance is None else f"; guessing would be right for {percent_text(chance)} %"
    return f"It was right for {right:,} of {n:,} ({percent_text(right / n)} %){guessing}."


def _interval(manifest: Manifest, summary: Summary, stopped: QuestionAnswer | None) -> str:
    """Return the sentence with the interval, anytime-valid if a question ended the run."""
    low, high = stopped.interval if stopped else summary.metrics.accuracy_ci95
    valid = ", valid although the result ended the run" if stopped else ""
    held = "this noise and these prompts" if manifest.on_draws else "these prompts"
    return (
        f"Of all images of this kind, with {held}, it would be right for {percent_text(low)} to"
        f" {percent_text(high)} % (95 % interval{valid})."
    )


HOW = " (`bench run … --again 60` measures it)"
TIED = 0.7  # estimated share of changes above which it is too low: nearly all answers change


def estimate_repeatability(manifest: Manifest, decided: Decisions) -> Repeatability | None:
    """Estimate how many decisions would change in a run with other noise.

    None if that cannot be estimated: nothing is random, the strategy stops early or is not
    installed, or no margin has a standard error.
    """
    strategy = strategy_of(manifest) if manifest.on_draws else None
    if strategy is None or not strategy.same_draws:
        return None
    noise = manifest.identity.scoring.noise or ""
    return repeatability(decided, own_noise=noise.endswith(" per image"))


def noise_sentence(manifest: Manifest, decided: Decisions, again: Again | None) -> str | None:
    """Return the sentence about other noise, or None if nothing is random."""
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
    strategy = strategy_of(manifest)
    level = None if strategy is None else strategy.level
    how = HOW if manifest.replayed_from is None else ""
    unknown = f"How many answers would change with other random noise is not known{how}."
    return unknown if level is None else f"Each answer was decided at level {level:g}. {unknown}"


def audit_sentence(audit: Audit) -> str:
    """Return the agreement of audited images with the full sweep, and its interval for all."""
    low, high = (percent_text(end) for end in audit.agreement_ci95)
    tied = ""
    if audit.same_or_tied is not None and audit.same_or_tied_ci95 is not None:
        at_least = percent_text(audit.same_or_tied_ci95[0])
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


def change_probability(answer: Answer, strategy: CheckedStrategy) -> float | None:
    """Return the probability that other noise would change an answer; None if unknown."""
    if not strategy.same_draws or answer.margin is None or not answer.margin_stderr:
        return None
    if answer.ranking[0].draws < FEWEST_DRAWS:
        return None
    first, *others = [place.score for place in answer.ranking]
    gaps = [np.inf if first is None or score is None else score - first for score in others]
    flips = flip_probability(
        np.array([answer.margin]), np.array([answer.margin_stderr]), np.array([gaps])
    )
    return float(flips[0])


def _count(value: float) -> str:
    return f"{value:.{0 if value >= 10 else 1}f}"


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
