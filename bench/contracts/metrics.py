"""What a plugin says of a metric without importing it.

A metric is declared once, with `register_metrics`. Summaries, studies, boards with their columns,
exports and `--metric` derive from the declaration. Its class is in `bench.contracts.measuring`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from bench.contracts.parameters import Spec

Need = Literal["prediction", "top5", "candidates", "scores", "groups", "columns", "rater"]
NEEDS: tuple[Need, ...] = get_args(Need)
IN_EVERY_RECORD = frozenset({"prediction", "top5", "candidates"})
BY_CLASS = "bench.stats.class_metrics:class_average"  # target of a metric with a ratio


@dataclass(frozen=True)
class ClassRatio:
    """A share of each class: weighted hits over weighted counts of images, 0 without images."""

    hits: float = 1  # weight, in the numerator, of the class's images that are predicted as it
    support: float = 0  # weight, in the denominator, of the class's images
    predicted: float = 0  # weight, in the denominator, of the images that are predicted as it


RECALL = ClassRatio(support=1)
PRECISION = ClassRatio(predicted=1)
F1 = ClassRatio(hits=2, support=1, predicted=1)


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric: an average over classes if it has a ratio, else what its class computes.

    Attributes:
        words: name in sentences and in the heads of tables.
        needs: what it reads. `prediction`: the predicted class; `top5`: whether the true class is
            among the five best, of more than five; `candidates`: whether it was among the image's
            candidates; `scores`: the scores of all classes on the same draws; `groups`: the group
            of each image; `columns`: further labels of each image; `rater`: the answers of another
            run, or of people, to the same images.
        range: least and largest value.
        direction: whether higher or lower values are better, or neither.
        unit: `share`, which tables show in per cent, or `number`.
        mean_over_images: whether it is a weighted mean over images. Then intervals, paired tests
            and sequential tests follow from the images' values; else from its influence values if
            its class has them, else from a bootstrap over images.
        ratio: the figure of each class that is averaged, in place of a class of its own.
        by_support: whether classes count by their images; else alike, if they have any.
        on_request: whether only `--metric` computes it, though every record has what it needs.
        required: whether the summary of every run has it.
        column: whether boards have a column of it.
        hub: the Hugging Face Hub's metric, and its name on a model card.
        hub_arguments: arguments of the Hub's metric.
    """

    kind: ClassVar[str] = "metric"

    target: str = BY_CLASS
    words: str = ""
    needs: tuple[str, ...] = ("prediction",)
    range: tuple[float, float] = (0.0, 1.0)
    direction: Literal["higher", "lower", "neither"] = "higher"
    unit: Literal["share", "number"] = "share"
    mean_over_images: bool = False
    ratio: ClassRatio | None = None
    by_support: bool = False
    on_request: bool = False
    required: bool = False
    column: bool = False
    hub: tuple[str, ...] = ()
    hub_arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_summaries(self) -> bool:
        """Whether every record has what it needs, so that summaries hold it; else on request."""
        return IN_EVERY_RECORD.issuperset(self.needs) and not self.on_request

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is, 0 where neither."""
        return {"higher": 1, "lower": -1, "neither": 0}[self.direction]

    def shown(self, value: float, sign: Literal["", "+"] = "") -> str:
        """Return a value, or a difference, for a table: in per cent of a share."""
        return f"{100 * value:{sign}.1f}" if self.unit == "share" else f"{value:{sign}.4g}"

    def verdict(self, difference: float) -> str:
        """Return what a significant difference, B less A, says of B."""
        if not self.sign:
            return "they differ"
        return "B is better" if self.sign * difference > 0 else "B is worse"

    def __post_init__(self) -> None:
        if self.ratio == RECALL and self.by_support:
            object.__setattr__(self, "mean_over_images", True)
        if not self.words:
            object.__setattr__(self, "words", self.name.replace("_", " ").replace("-", " "))
        super().__post_init__()

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if (self.ratio is None) == (self.target == BY_CLASS):
            yield "it has either a target or a ratio"
        if unknown := [need for need in self.needs if need not in NEEDS] or not self.needs:
            yield f"needs={unknown!r}; there are: {', '.join(NEEDS)}"
        if not self.range[0] < self.range[1]:
            yield f"range={self.range!r} ends before it begins"
        if self.hub and len(self.hub) != 2:
            yield f"hub={self.hub!r} is the Hub's metric and its name there"
