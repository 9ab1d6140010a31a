"""Values with units, one formatter per unit; terminals, pages and files only lay them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from bench.contracts.metrics import MetricSpec
from bench.reports.formats import NONE, percent_text, points_text, with_interval

if TYPE_CHECKING:  # so that listings, which import this module, load neither numpy nor pydantic
    from bench.stats.paired import Difference

# fmt: off
Unit = Literal[
    "text", "share", "points", "number", "difference", "count", "cost", "passes", "ratio", "rank",
    "p", "bar", "hit", "miss",
]
# fmt: on
Interval = tuple[float, float]
Row = TypeVar("Row")

FORMATTERS: dict[Unit, Callable[[Any, Interval | None], str]] = {
    "text": lambda value, _: str(value),
    "share": percent_text,
    "points": points_text,
    "number": partial(with_interval, "{:.4g}".format),
    "difference": partial(with_interval, "{:+.4g}".format, between=" to "),
    "count": lambda value, _: f"{value:,}",
    "cost": lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
    "passes": lambda value, _: f"{value:.0f} pass",  # a classifier looks once at an image
    "ratio": lambda value, _: f"{value:.3g}",
    "rank": lambda value, _: "–".join(map(str, dict.fromkeys(value))),
    "p": lambda value, _: f"{value:.2g}",
    "bar": lambda value, _: "",  # drawn on pages alone
    "hit": lambda value, _: str(value),  # cells of a confusion matrix
    "miss": lambda value, _: str(value),
}
IN_LABEL: dict[Unit, str] = {"share": ", %", "points": ", points"}  # units that labels name


@dataclass(frozen=True)
class Fact:
    """A named value with its unit and, if it has one, its 95 % interval; None: unknown."""

    name: str
    value: Any
    unit: Unit = "text"
    interval: Interval | None = None
    note: str = ""  # what else is to be said of the value
    link: str = ""  # address to which a page links the value
    marks: Mapping[str, str] = field(default_factory=dict)  # kind → text of marks on a page
    share: float | None = None  # share that a page draws: what is done, or a colour; None: none
    strong: bool = False  # emphasized on a page
    command: str = ""  # command that a page shows on request

    @property
    def label(self) -> str:
        """The name with the unit of the text."""
        return self.name + IN_LABEL.get(self.unit, "")

    @property
    def text(self) -> str:
        """The value with its interval, as people read it."""
        return NONE if self.value is None else FORMATTERS[self.unit](self.value, self.interval)

    @property
    def key(self) -> object:
        """The value by which a page sorts; "" if it is unknown."""
        value = self.value[0] if isinstance(self.value, tuple) else self.value  # a rank's first
        return "" if value is None else value

    @property
    def line(self) -> str:
        """The text followed by the note."""
        return f"{self.text}; {self.note}" if self.note else self.text


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column of a table: its name, its unit, and the value or the fact of each row."""

    name: str
    of: Callable[[Row], object]
    unit: Unit = "text"

    @property
    def label(self) -> str:
        """The heading, with the unit of the texts."""
        return self.name + IN_LABEL.get(self.unit, "")

    def fact(self, row: Row) -> Fact:
        """Return the cell of a row."""
        value = self.of(row)
        return value if isinstance(value, Fact) else Fact(self.name, value, self.unit)


def metric_unit(metric: MetricSpec, difference: bool = False) -> Unit:
    """Return the unit of a metric's values, or of their differences."""
    if metric.unit == "share":
        return "points" if difference else "share"
    return "difference" if difference else "number"


def metric_fact(
    metric: MetricSpec, value: float | None, interval: Interval | None = None, note: str = ""
) -> Fact:
    """Return the value of a metric as a fact."""
    return Fact(metric.words, value, metric_unit(metric), interval, note)


def difference_fact(
    metric: MetricSpec, difference: Difference, name: str = "difference, B − A"
) -> Fact:
    """Return a difference of two values of a metric as a fact."""
    unit = metric_unit(metric, difference=True)
    return Fact(name, difference.estimate, unit, difference.interval)
