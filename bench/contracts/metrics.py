"""Metrics of a run: each is declared once, here.

Summaries, studies, boards with their columns, exports and `--metric` derive from the declaration.
A plugin's metrics can come through `register` as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.errors import UserError, did_you_mean


@dataclass(frozen=True)
class ClassRatio:
    """A share of each class: weighted hits over weighted counts of images, 0 without images."""

    hits: float = 1  # weight, in the numerator, of the class's images that are predicted as it
    support: float = 0  # weight, in the denominator, of the class's images
    predicted: float = 0  # weight, in the denominator, of the images that are predicted as it


RECALL = ClassRatio(support=1)
PRECISION = ClassRatio(predicted=1)
F1 = ClassRatio(hits=2, support=1, predicted=1)


@dataclass(frozen=True)
class MetricSpec:
    """One metric. It is an average over classes if it has a ratio, else a mean over images."""

    name: str  # the key of summaries, rows and `--json`, and the value of `--metric`
    words: str  # its name in sentences and in the heads of tables
    meaning: str  # its definition, for the schemas of documents
    ratio: ClassRatio | None = None  # the figure of each class that is averaged
    by_support: bool = False  # whether classes count by their images; else alike, if they have any
    needs: Literal["prediction", "top5", "candidates"] = "prediction"
    """What its values are: whether the prediction is right, the true class is among the five best
    (of more than five), or among an image's candidates."""
    range: tuple[float, float] = (0.0, 1.0)  # its least and its largest value
    required: bool = False  # whether the summary of every run has it
    tested: bool = False  # whether differences are tested in it, which needs a ratio
    column: bool = False  # whether boards have a column of it
    hub: tuple[str, str, Mapping[str, str | int]] | None = None
    """The Hugging Face Hub's metric, its name on a model card and its arguments."""

    @property
    def mean_over_images(self) -> bool:
        """Whether it is a plain mean over images, as the accuracy, the mean recall by support."""
        return self.ratio is None or (self.ratio == RECALL and self.by_support)


METRICS: dict[str, MetricSpec] = {}


def register(name: str, **fields: Any) -> None:
    """Declare a metric, with the fields of `MetricSpec`."""
    METRICS[name] = MetricSpec(name, **fields)


def difference_metrics() -> tuple[str, ...]:
    """Return the metrics that differences are tested in."""
    return tuple(metric.name for metric in METRICS.values() if metric.tested)


def difference_metric(name: str) -> MetricSpec:
    """Return a metric that differences are tested in.

    Raises:
        UserError: there is none of this name.
    """
    names = difference_metrics()
    if name not in names:
        raise UserError(
            f"Differences are not tested in {name!r}.{did_you_mean(name, names)} Metrics:"
            f" {', '.join(names)}."
        )
    return METRICS[name]


register(
    "accuracy",
    words="accuracy",
    meaning="Share of images whose prediction is right; failed images count as wrong.",
    ratio=RECALL,
    by_support=True,
    required=True,
    tested=True,
    hub=("accuracy", "Accuracy", {}),
)
register(
    "balanced_accuracy",
    words="balanced accuracy",
    meaning="Mean of the classes' recalls.",
    ratio=RECALL,
    required=True,
    tested=True,
    hub=("accuracy", "Balanced accuracy", {"balanced": True}),
)
register(
    "precision_weighted",
    words="weighted precision",
    meaning="Mean precision of the classes, weighted by their images.",
    ratio=PRECISION,
    by_support=True,
    required=True,
    hub=("precision", "Precision, weighted", {"average": "weighted"}),
)
register(
    "recall_weighted",
    words="weighted recall",
    meaning="Mean recall, weighted by images; it equals the accuracy.",
    ratio=RECALL,
    by_support=True,
    required=True,
    hub=("recall", "Recall, weighted", {"average": "weighted"}),
)
register(
    "f1_weighted",
    words="weighted F1",
    meaning="Mean F1 of the classes, weighted by their images.",
    ratio=F1,
    by_support=True,
    required=True,
    tested=True,
    column=True,
    hub=("f1", "F1, weighted", {"average": "weighted"}),
)
register(
    "precision_macro",
    words="macro precision",
    meaning="Unweighted mean precision of the classes.",
    ratio=PRECISION,
)
register(
    "recall_macro",
    words="macro recall",
    meaning="Unweighted mean recall of the classes; it equals the balanced accuracy.",
    ratio=RECALL,
)
register(
    "f1_macro",
    words="macro F1",
    meaning="Unweighted mean F1 of the classes.",
    ratio=F1,
    tested=True,
    column=True,
    hub=("f1", "F1, macro", {"average": "macro"}),
)
register(
    "top5_accuracy",
    words="top-5 accuracy",
    meaning="Share of images whose class is among the five best; None with five classes or fewer.",
    needs="top5",
    hub=("accuracy", "Top-5 accuracy", {"top_k": 5}),
)
register(
    "candidate_recall",
    words="candidate recall",
    meaning=(
        "Of a run among candidates, the share of images whose class was a candidate: an upper limit"
        " of the accuracy."
    ),
    needs="candidates",
)
