"""A run in three plain sentences: what was asked, how well it was answered, how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts.specs import FITTED, UNDECLARED, UNKNOWN
from bench.render.repeatability import noise_sentence
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.summary import Again, Summary


@dataclass(frozen=True)
class Opening:
    """Three sentences for a reader who knows none of the toolkit's words."""

    asked: str
    well: str
    sure: str

    def __str__(self) -> str:
        return f"{self.asked} {self.well} {self.sure}"


def opening(
    manifest: Manifest, summary: Summary, decided: Decisions, again: Again | None = None
) -> Opening:
    """Return the three sentences about a run.

    Args:
        manifest: of the run.
        summary: its summary, or that of what is decided so far.
        decided: its decisions, at least one.
        again: what came of some images that were decided again.
    """
    parts = _interval(manifest, summary), noise_sentence(manifest, decided, again)
    sure = " ".join(part for part in parts if part)
    return Opening(_asked(manifest, len(decided)), _well(summary, decided), sure)


def _asked(manifest: Manifest, n: int) -> str:
    dataset, control = manifest.dataset, manifest.identity.control
    if manifest.items is None:
        question = f"Which of {len(manifest.classes):,} classes does each image show?"
        things = "image" if n == 1 else "images"
    else:
        question = "Which of its texts fits each image?"
        things = "item" if n == 1 else "items"
    blind = f", with the images destroyed ({control})" if control else ""
    return (
        f"{question} {n:,} {things} of {dataset.name}/{dataset.split} {'was' if n == 1 else 'were'}"
        f" put to {manifest.backbone.name}, {_trained(manifest.backbone.trained_on)}{blind}."
    )


def _trained(trained_on: str | None) -> str:
    """Return what is known of the training of the model that was asked."""
    if trained_on is None:
        return "a model that was not trained on this dataset"
    if trained_on == FITTED:
        return "a model that was fitted on other images of this dataset"
    if trained_on in (UNKNOWN, UNDECLARED):
        return "a model whose training data is not known"
    return f"a model that was trained on {trained_on}"


def _well(summary: Summary, decided: Decisions) -> str:
    right, n = int(decided.correct.sum()), len(decided)
    chance = summary.metrics.chance
    guessing = "" if chance is None else f"; guessing would be right for {_percent(chance)} %"
    return f"It was right for {right:,} of {n:,} ({_percent(right / n)} %){guessing}."


def _interval(manifest: Manifest, summary: Summary) -> str:
    """Return the interval of the accuracy, and what it is over."""
    low, high = summary.metrics.accuracy_ci95
    held = "this noise and these prompts" if manifest.on_draws else "these prompts"
    return (
        f"Of all images of this kind, with {held}, it would be right for {_percent(low)} to"
        f" {_percent(high)} % (95 % interval)."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
