"""The summary of a run: how right its decisions were, and what they took."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from bench.store.documents import BackboneInfo, Data, Fitted
from bench.store.fields import (
    Amount,
    Count,
    Document,
    Interval,
    Positive,
    RunId,
    Share,
    without_none,
)
from bench.store.identity import StrategyIdentity


class Counted(Data):
    """The images that a summary is about."""

    n_samples: Positive
    """Images decided."""


class Group(Document):
    """The samples of one group."""

    group: str
    """Its name."""
    n: Positive
    """Images of it."""
    accuracy: Share
    """The share of them that is right."""
    accuracy_ci95: Interval
    """Its 95 % Wilson interval."""


class Metrics(Document):
    """How right the decisions were. Versions before the first release wrote no macro averages."""

    accuracy: Share
    """The share of images whose prediction is right; failed images count as wrong."""
    accuracy_ci95: Interval
    """Its 95 % Wilson interval."""
    balanced_accuracy: Share
    """The mean of the classes' recalls."""
    precision_weighted: Share
    """Over classes, by their images."""
    recall_weighted: Share
    """Likewise; it equals the accuracy."""
    f1_weighted: Share
    """Likewise."""
    precision_macro: Share | None = None
    """Over classes, each alike."""
    recall_macro: Share | None = None
    """Likewise."""
    f1_macro: Share | None = None
    """Likewise."""
    top5_accuracy: Share | None = None
    """None where there are five classes or fewer."""
    candidate_recall: Share | None = None
    """Of a run among candidates, the share of images whose class was one of them: no strategy can
    be right more often."""
    chance: Share | None = None
    """The accuracy of guessing: one over the number of classes, or of an item's answers."""
    text_score: Share | None = None
    """Of items with several images: the share in which every image has its text; the accuracy."""
    image_score: Share | None = None
    """The share in which every text has its image; None where images do not compare."""
    image_score_ci95: Interval | None = None
    """Its 95 % Wilson interval."""
    image_chance: Share | None = None
    """The image score of guessing."""
    group_score: Share | None = None
    """The share in which both are right; None where images do not compare."""
    group_score_ci95: Interval | None = None
    """Its 95 % Wilson interval."""
    group_chance: Share | None = None
    """The group score of guessing."""
    worst_group: Group | None = None
    """Of a dataset with groups, the one with the lowest accuracy."""


class Cost(Document):
    """What the decisions took.

    Evaluation equivalents are one for each evaluation, and for each linearised draw what forward
    and backward pass cost in evaluations. Before there were linearisations, a summary had none:
    then an evaluation equivalent was an evaluation.
    """

    evaluations: Count
    """Forward passes of the network, one per cell."""
    evaluations_per_image: Amount
    """Their mean."""
    linearisations: Count = 0
    """Draws of which a gradient was taken."""
    evaluation_equivalents: Amount | None = None
    """Evaluations, and gradients counted in evaluations."""
    evaluation_equivalents_per_image: Amount | None = None
    """Their mean: the cost that tables show."""
    linearisation_cost: Amount | None = None
    """What a linearised draw counted as; None where it was timed."""
    seconds: Amount | None
    """Of scoring."""
    images_per_second: Amount | None
    """Of scoring."""
    total_seconds: Amount | None
    """Loading and preparing included."""
    peak_memory_bytes: Count | None = None
    """Of the device."""

    @property
    def timed(self) -> bool:
        """Whether the equivalents rest on a clock, so on one machine and one day."""
        return self.linearisations > 0 and self.linearisation_cost is None

    @property
    def equivalents_per_image(self) -> float:
        """Evaluation equivalents per image."""
        known = self.evaluation_equivalents_per_image
        return self.evaluations_per_image if known is None else known

    def per_image(self, classifier: bool) -> float:
        """Return what tables show: evaluation equivalents, of a classifier its one pass per image.

        A classifier's evaluations are its scores, one per text. It encodes the image once.
        """
        return 1.0 if classifier else self.equivalents_per_image

    def in_words(self, classifier: bool) -> str:
        """Return the cost per image with its unit."""
        if classifier:
            return "1 pass per image"
        return f"{self.equivalents_per_image:,.1f} evaluation equivalents per image"


class Ends(Document):
    """How many images each end has, of a strategy that says what ended them."""

    bound: Count = 0
    """Its test left one class."""
    ceiling: Count = 0
    """A limit on the cost left prompts out or ended the image: nothing is promised for it."""
    exhausted: Count = 0
    """All draws were used up."""


class Summary(Document):
    """`summary.json`: metrics and cost; with its folder, the object that `--json` prints."""

    run_id: RunId
    """As in the manifest."""
    status: str
    """`complete`; `failed_samples`; `incomplete`, where images are still to be decided."""
    dataset: Counted
    """What was scored."""
    backbone: BackboneInfo
    """What scored it."""
    strategy: StrategyIdentity
    """What decided."""
    metrics: Metrics
    """How right it was."""
    cost: Cost
    """What it took."""
    failed_samples: Count
    """Images that could not be scored."""
    decided_by: Ends | None = None
    """None: the strategy does not say what ended an image."""
    replayed_from: str | None = None
    """Of a replay, the run whose errors were replayed."""
    fitted: Fitted | None = None
    """What a backbone that learned says of the result."""
    results_dir: str | None = None
    """Where it was made."""

    def made_in(self, folder: Path, fitted: Fitted | None) -> Self:
        """Return it with where it was made, and what a backbone that learned says of the result."""
        place = without_none(results_dir=str(folder.resolve()), fitted=fitted)
        return self.model_copy(update=place)
