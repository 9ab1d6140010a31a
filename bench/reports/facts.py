"""Values with units, and their texts, which are the same on terminals, on pages and in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

from bench.contracts.metric_spec import MetricSpec, points, signed

if TYPE_CHECKING:  # so that listings, which import this module, load neither numpy nor pydantic
    from bench.stats.inference.paired import Difference

NONE = "–"  # an unknown value


def value_text(value: Any, missing: str = NONE, separator: str = ",") -> str:
    """Return a value in the syntax of `--set`, such as `5,50`, or `missing` for None."""
    if value is None:
        return missing
    return separator.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def with_interval(form: Callable[[float], str], value: float, interval: Interval | None) -> str:
    """Return `form(value)`, followed by the ends of the interval, with minus signs for hyphens."""
    text = form(value) + (f" ({' to '.join(map(form, interval))})" if interval else "")
    return signed(text)


def percent_text(share: float, interval: tuple[float, float] | None = None) -> str:
    """Return a share in per cent, with its interval if it has one, such as `86.2 (80.9–90.2)`.

    The share has more digits where one would round it to 0 or to 100.
    """
    digits = 1
    if 1e-9 < share < 1 - 1e-9:  # neither 0 nor 1, whatever the rounding error
        digits = next(n for n in range(1, 16) if round(100 * share, n) not in (0, 100))
    ends = f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else ""
    return f"{100 * share:.{digits}f}{ends}"


def points_text(difference: float, interval: tuple[float, float] | None = None) -> str:
    """Return a difference of shares in points, with its interval: `+1.4 (−0.5 to +3.3)`."""
    return with_interval(points, difference, interval)


def _p_text(p: float, _: Interval | None) -> str:
    """Return a p-value with two digits, or more if these would round it across 5 %."""
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) <= 0.05) == (p <= 0.05))


def template_text(template: str | None) -> str | None:
    """Return a template in quotes, and the name of a file of templates without them."""
    return f"“{template}”" if template and "{" in template else template


def assignments(params: Mapping[str, Any]) -> str:
    """Return parameters in the syntax of `--set`, such as `samples=5,50 keep=3,1`."""
    return " ".join(f"{k}={value_text(v)}" for k, v in params.items() if v is not None)


def format_duration(seconds: float) -> str:
    """Format a duration: 0.8 s, 12 s, 5 min, 3.4 h, 2.5 days."""
    if seconds < 100:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.1f} days"


# fmt: off
Unit = Literal[
    "text", "share", "points", "number", "difference", "count", "cost", "passes", "rank", "p",
    "bar", "hit", "miss",
]
# fmt: on
Interval = tuple[float, float]
Row = TypeVar("Row")

FORMATTERS: dict[Unit, Callable[[Any, Interval | None], str]] = {
    **dict.fromkeys(("text", "hit", "miss"), lambda value, _: str(value)),
    "share": percent_text,
    "points": points_text,
    "number": partial(with_interval, "{:.4g}".format),
    "difference": partial(with_interval, "{:+.4g}".format),
    "count": lambda value, _: f"{value:,}",
    "cost": lambda value, _: f"{value:,.0f}" if value >= 100 else f"{value:.3g}",  # or a ratio
    "passes": lambda value, _: f"{value:.0f} pass",  # a classifier looks once at an image
    "rank": lambda value, _: "–".join(map(str, dict.fromkeys(value))),
    "p": _p_text,
    "bar": lambda value, _: "",  # drawn on pages alone
}
IN_LABEL: dict[Unit, str] = {"share": ", %", "points": ", points"}  # units that labels name


class Mark(NamedTuple):
    """A remark about a row of a table, such as `replayed`."""

    word: str  # in tables; the glossary explains it
    text: str = ""  # the remark in full; "" if it is the word alone

    @property
    def full(self) -> str:
        """The remark in full, as wide tables and the page of a run show it."""
        return self.text or self.word


def labelled(name: str, unit: Unit) -> str:
    """Return the name of values with the unit that their texts leave out: `accuracy, %`."""
    return name + IN_LABEL.get(unit, "")


@dataclass(frozen=True)
class Fact:
    """A named value with its unit and, if it has one, its 95 % interval; None: unknown."""

    name: str
    value: Any
    unit: Unit = "text"
    interval: Interval | None = None
    note: str = ""  # further text about the value
    link: str = ""  # address to which a page links the value
    marks: Mapping[str, Mark] = field(default_factory=dict)  # marks that a page shows, by kind
    share: float | None = None  # share that a page draws as a bar or a colour; None: none
    strong: bool = False  # emphasized on a page
    struck: bool = False  # struck through, since it is known to be wrong
    command: str = ""  # command that a page shows on request

    @property
    def label(self) -> str:
        """The name with the unit of the text."""
        return labelled(self.name, self.unit)

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
        return labelled(self.name, self.unit)

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
