"""Facts with one formatter per unit; terminals, pages, notebooks and files only lay them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bench.contracts.metrics import MetricSpec
from bench.reports.formats import percent_text, points_text
from bench.stats.paired import Difference

Unit = Literal["text", "share", "points", "number", "difference", "count", "cost", "ratio"]
Interval = tuple[float, float]


def _number_text(value: float, interval: Interval | None) -> str:
    return f"{value:.4g}" + (f" ({interval[0]:.4g}–{interval[1]:.4g})" if interval else "")


def _difference_text(value: float, interval: Interval | None) -> str:
    return f"{value:+.4g}" + (f" ({interval[0]:+.4g} to {interval[1]:+.4g})" if interval else "")


FORMATTERS: dict[Unit, Callable[[Any, Interval | None], str]] = {
    "text": lambda value, _: str(value),
    "share": percent_text,
    "points": points_text,
    "number": _number_text,
    "difference": _difference_text,
    "count": lambda value, _: f"{value:,}",
    "cost": lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}",
    "ratio": lambda value, _: f"{value:.3g}",
}
IN_LABEL: dict[Unit, str] = {"share": ", %", "points": ", points"}  # units that labels name


@dataclass(frozen=True)
class Fact:
    """A named value with its unit and, if it has one, its 95 % interval."""

    name: str
    value: Any
    unit: Unit = "text"
    interval: Interval | None = None
    note: str = ""  # what else is to be said of the value

    @property
    def label(self) -> str:
        """The name with the unit of the text."""
        return self.name + IN_LABEL.get(self.unit, "")

    @property
    def text(self) -> str:
        """The value with its interval, as people read it."""
        return FORMATTERS[self.unit](self.value, self.interval)

    @property
    def line(self) -> str:
        """The text followed by the note."""
        return f"{self.text}; {self.note}" if self.note else self.text


def metric_fact(
    metric: MetricSpec, value: float, interval: Interval | None = None, note: str = ""
) -> Fact:
    """Return the value of a metric as a fact."""
    unit: Unit = "share" if metric.unit == "share" else "number"
    return Fact(metric.words, value, unit, interval, note)


def difference_fact(
    metric: MetricSpec, difference: Difference, name: str = "difference, B − A"
) -> Fact:
    """Return a difference of two values of a metric as a fact."""
    unit: Unit = "points" if metric.unit == "share" else "difference"
    return Fact(name, difference.estimate, unit, difference.interval)
