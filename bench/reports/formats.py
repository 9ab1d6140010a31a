"""Format leaderboard rows as text: board titles, labels, costs and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import floor
from typing import TYPE_CHECKING, Any

from bench.contracts.metrics import MetricSpec
from bench.contracts.specs import provenance

if TYPE_CHECKING:  # so that listing commands, which import this module, do not load pydantic
    from bench.reports.leaderboard.rows import LeaderboardRow


def boards(rows: Sequence[LeaderboardRow]) -> Iterator[tuple[str, list[LeaderboardRow]]]:
    """Yield the title and the rows of each board. Rows must be grouped by board already.

    If boards have the same dataset, split and version, their titles also name the data.
    """
    fingerprints: dict[str, set[str | None]] = {}
    for row in rows:
        fingerprints.setdefault(_name(row), set()).add(row.fingerprint)
    for (name, fingerprint), group in groupby(rows, key=lambda r: (_name(r), r.fingerprint)):
        several = len(fingerprints[name]) > 1 and fingerprint is not None
        yield name + (f", data {fingerprint[:8]}" if several else ""), list(group)


def _name(row: LeaderboardRow) -> str:
    version = f", version {row.version}" if row.version else ""
    return f"{row.dataset}/{row.split}{version}"


def row_labels(row: LeaderboardRow) -> dict[str, str]:
    """Return the labels of a row, which say how it differs from a usual one, as kind → text."""
    labels = {}
    if row.kind == "subset":
        labels["subset"] = row.stopped or f"subset of {row.n_total:,}"
        labels |= {"replayed": "replayed"} if row.replayed_from else {}
    elif row.kind not in ("measured", "candidates"):
        labels[row.kind] = row.kind
    if (recall := row.metric("candidate_recall")) is not None:
        top = row.parameters.get("top")
        labels["candidates"] = f"among {top} candidates, recall {percent_text(recall)} %"
    if (test := row.against_first) is not None:
        labels["difference"] = points_text(test.difference.estimate, test.difference.interval)
    labels["trained" if row.trained_on else "zero-shot"] = provenance(row.trained_on)
    if row.draw_plan not in (None, "grid"):  # not the default plan
        labels["draws"] = f"draws {row.draw_plan}"
    if row.cost_timed:
        labels["timed"] = "cost timed"
    if row.in_memory:
        labels["in-memory"] = f"{row.in_memory} in memory"
    if row.adapters:
        labels["LoRA"] = f"LoRA {row.adapters}"
    if row.audited and row.agreement_ci95:
        lower = floor(1000 * row.agreement_ci95[0]) / 10
        same = f"{row.audited_same:,} of {row.audited:,} as the full sweep"
        labels["audited"] = f"{same}, ≥ {lower:g} %"
    if row.private_data:
        labels["private"] = "private data"
    if row.failed_samples:
        labels["failed"] = f"{row.failed_samples:,} failed"
    return labels


def cost_text(row: LeaderboardRow) -> str:
    """Return the cost per image: evaluation equivalents, or one pass of a classifier."""
    if row.cost is None:
        return "–"
    return "1 pass" if row.classifier else f"{row.cost:,.0f}"


def value_text(value: Any, missing: str = "–", separator: str = ",") -> str:
    """Return a value in the syntax of `--set`, such as `5,50`, or `missing` for None."""
    if value is None:
        return missing
    return separator.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def percent_text(share: float, interval: tuple[float, float] | None = None) -> str:
    """Return a share in per cent, with its interval if it has one, such as `86.2 (80.9–90.2)`."""
    if interval is None:
        return f"{100 * share:.1f}"
    low, high = interval
    return f"{100 * share:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def points_text(difference: float, interval: tuple[float, float] | None = None) -> str:
    """Return a difference of shares in points, with its interval: `+1.4 (-0.5 to +3.3)`."""
    if interval is None:
        return f"{100 * difference:+.1f}"
    low, high = interval
    return f"{100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def template_text(template: str | None) -> str | None:
    """Return a template in quotes, and the name of a file of templates without them."""
    return f"“{template}”" if template and "{" in template else template


def metric_head(metric: MetricSpec) -> str:
    """Return the heading of a metric's column, with the unit of `MetricSpec.shown`."""
    return f"{metric.words}{', %' * (metric.unit == 'share')}"


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
