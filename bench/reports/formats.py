"""Format shares, parameters and durations as text."""

from collections.abc import Callable, Mapping
from typing import Any

NONE = "–"  # an unknown value


def value_text(value: Any, missing: str = NONE, separator: str = ",") -> str:
    """Return a value in the syntax of `--set`, such as `5,50`, or `missing` for None."""
    if value is None:
        return missing
    return separator.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def with_interval(
    form: Callable[[float], str],
    value: float,
    interval: tuple[float, float] | None,
    between: str = "–",
) -> str:
    """Return a number as text, followed by the ends of its interval if it has one."""
    return form(value) + (f" ({between.join(map(form, interval))})" if interval else "")


def percent_text(share: float, interval: tuple[float, float] | None = None) -> str:
    """Return a share in per cent, with its interval if it has one, such as `86.2 (80.9–90.2)`."""
    return with_interval(lambda part: f"{100 * part:.1f}", share, interval)


def points_text(difference: float, interval: tuple[float, float] | None = None) -> str:
    """Return a difference of shares in points, with its interval: `+1.4 (-0.5 to +3.3)`."""
    # Adding 0 removes the sign of a zero, such as that of -0.0004.
    return with_interval(lambda d: f"{round(100 * d, 1) + 0:+.1f}", difference, interval, " to ")


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
