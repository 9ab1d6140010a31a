"""The registration of a metric, which is read without importing the metric itself.

A metric is registered once, with `register_metrics`. Summaries, studies, leaderboards, exports and
`--metric` are derived from this registration. The base class is in `bench.contracts.metric`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from bench.contracts.parameters import Spec

Need = Literal["prediction", "top5", "candidates", "ranks", "scores", "groups", "columns", "rater"]
NEEDS: tuple[Need, ...] = get_args(Need)
IN_EVERY_RECORD = frozenset({"prediction", "top5", "candidates", "ranks"})
BY_CLASS = "bench.stats.inference.class_metrics:class_average"  # target of a metric with a ratio

# Names of fields beside the metrics in summaries, tables and boards.
_RESERVED = (
    "about_images accuracy_ci95 adapters against_first agreement_ci95 anytime_ci95 audit audited "
    "audited_same axes backbone bytes chance classes command cost cost_timed created dataset "
    "differs draw_plan draws dtype errata error evaluation_equivalents_per_image "
    "evaluations_per_image failed_samples fingerprint first_order flop_per_image group_chance "
    "group_score group_score_ci95 image_chance image_score image_score_ci95 images in_memory "
    "kind loss n n_asked n_samples n_total note parameters params path private_data prompt "
    "prompts published rank replayed_from run_id running seconds seed seen settings shard source "
    "space split status stopped strategy tags template text_score trained_on version weights "
    "worst_group"
)
RESERVED = frozenset(_RESERVED.split())
_HYPHEN = re.compile(r"(?<![\w.)/-])-(?=\d)")


def signed(text: str) -> str:
    """Return the text of numbers with a minus sign in the place of each hyphen before a digit."""
    return _HYPHEN.sub("−", text)


def points(difference: float) -> str:
    """Return a difference of shares in points, such as `+1.4` or `−0.5`."""
    # Adding 0 removes the sign of a zero, such as that of -0.0004.
    return signed(f"{round(100 * difference, 1) + 0:+.1f}")


@dataclass(frozen=True)
class ClassRatio:
    """A ratio per class: weighted hits over weighted counts of images, or 0 without images."""

    hits: float = 1  # weight of true positives in the numerator
    support: float = 0  # weight of the images of the class in the denominator
    predicted: float = 0  # weight of the images predicted as the class in the denominator


RECALL = ClassRatio(support=1)


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A metric: an average over classes of `ratio`, or what its target computes.

    Attributes:
        words: name in sentences and table headings; by default the name without hyphens.
        needs: the inputs that it reads. `prediction`: the predicted class; `top5`: whether the true
            class is among the five best, of more than five; `candidates`: whether it was a
            candidate of the image; `ranks`: the place of an item's best right answer, of more than
            five answers; `scores`: scores of all classes on the same draws; `groups`: the
            group of each image; `columns`: further labels of each image; `rater`: the answers of
            another run, or of people, to the same images.
        range: smallest and largest possible value.
        direction: whether higher or lower is better, or neither.
        unit: `share`, which tables show in per cent, or `number`.
        mean_over_images: whether it is a weighted mean over images. If so, intervals, paired tests
            and sequential tests are derived from the values of the images; otherwise from influence
            values if its class has them, or from a bootstrap over images.
        ratio: the figure of each class that is averaged, instead of a target.
        by_support: whether classes are weighted by their number of images. Otherwise all classes
            with images have equal weights.
        on_request: whether it is computed only for `--metric`, even if every record has its inputs.
        required: whether the summary of every run must have it, for metrics with a ratio. An
            average over classes is null in a summary of items.
        column: whether leaderboards have a column for it.
        hub: the Hugging Face Hub's metric, and its name on a model card.
        hub_arguments: arguments of the Hub's metric.
    """

    kind: ClassVar[str] = "metric"

    target: str = BY_CLASS
    words: str = ""
    needs: tuple[Need, ...] = ("prediction",)
    range: tuple[float, float] = (0.0, 1.0)
    direction: Literal["higher", "lower", "neither"] = "higher"
    unit: Literal["share", "number"] = "share"
    mean_over_images: bool = False
    ratio: ClassRatio | None = None
    by_support: bool = False
    on_request: bool = False
    required: bool = False
    column: bool = False
    hub: tuple[str, str] | None = None
    hub_arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_summaries(self) -> bool:
        """Whether summaries contain it: every record has its inputs, and it is not `on_request`."""
        return IN_EVERY_RECORD.issuperset(self.needs) and not self.on_request

    @property
    def of_classes(self) -> bool:
        """Whether it averages a ratio over classes, so that items, which have none, lack it."""
        return self.ratio is not None and not self.mean_over_images

    @property
    def sign(self) -> int:
        """1 if higher is better, -1 if lower is, 0 if neither."""
        return {"higher": 1, "lower": -1, "neither": 0}[self.direction]

    def shown(self, value: float, sign: Literal["", "+"] = "") -> str:
        """Format a value, or a difference, for a table; shares are shown in per cent."""
        return f"{100 * value:{sign}.1f}" if self.unit == "share" else f"{value:{sign}.4g}"

    def verdict(self, difference: float) -> str:
        """Return a verdict on B, given a significant `difference` B minus A."""
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
            yield "expected either a target or a ratio, got both or none"
        if self.required and self.ratio is None:
            yield "required is for metrics with a ratio, which have a value for every run"
        if self.name in RESERVED:
            yield "the name is reserved: results have a field of this name"
        if not self.needs:
            yield f"needs must be one or more of {', '.join(NEEDS)}"
        if not self.range[0] < self.range[1]:
            yield f"range must be the smallest and the largest value, got {self.range!r}"
