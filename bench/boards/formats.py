"""Format leaderboard rows as text: board titles, labels, costs and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import floor
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import provenance

if TYPE_CHECKING:  # so that listing commands, which import this module, do not load pydantic
    from bench.boards.rows import LeaderboardRow


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


def label_texts(row: LeaderboardRow, sources: list[str]) -> list[str]:
    """Return the labels of a row; that of a reported one has the number of its source.

    A new source is appended to `sources` in place.
    """
    texts = [
        text for kind, text in row_labels(row) if kind != "draws"
    ]  # tables show it as a setting
    if row.kind == "reported":
        if row.source not in sources:
            sources.append(row.source)
        texts[-1] += f" ({sources.index(row.source) + 1})"
    return texts


def row_labels(row: LeaderboardRow) -> list[tuple[str, str]]:
    """Return the labels of a row, which say how it differs from a usual one, as (kind, text)."""
    texts = []
    if row.kind == "subset":
        texts.append(("subset", row.stopped or f"subset of {row.n_total:,}"))
        if row.replayed_from:
            texts.append(("replayed", "replayed"))
    elif row.kind not in ("measured", "candidates"):
        texts.append((row.kind, row.kind))
    if (recall := row.metric("candidate_recall")) is not None:
        top = row.parameters.get("top")
        texts.append(("candidates", f"among {top} candidates, recall {recall:.4f}"))
    texts.append(("trained" if row.trained_on else "zero-shot", provenance(row.trained_on)))
    if row.draw_plan not in (None, "grid"):  # not the default plan
        texts.append(("draws", f"draws {row.draw_plan}"))
    if row.cost_timed:
        texts.append(("timed", "cost timed"))
    if row.in_memory:
        texts.append(("in-memory", f"{row.in_memory} in memory"))
    if row.audited and row.agreement_ci95:
        lower = floor(1000 * row.agreement_ci95[0]) / 10
        same = f"{row.audited_same:,} of {row.audited:,} as the full sweep"
        texts.append(("audited", f"{same}, ≥ {lower:g} %"))
    if row.private_data:
        texts.append(("private", "private data"))
    if row.failed_samples:
        texts.append(("failed", f"{row.failed_samples:,} failed"))
    return texts


def cost_text(row: LeaderboardRow, digits: int = 0) -> str:
    """Return the cost per image: evaluation equivalents, or one pass of a classifier."""
    if row.cost is None:
        return "–"
    return "1 pass" if row.classifier else f"{row.cost:,.{digits}f}"


def value_text(value: Any, missing: str = "–", separator: str = ",") -> str:
    """Return a value in the syntax of `--set`, such as `5,50`, or `missing` for None."""
    if value is None:
        return missing
    return separator.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def percent_text(share: float, interval: tuple[float, float]) -> str:
    """Return a share with its interval in per cent, such as `86.2 (80.9–90.2)`."""
    low, high = interval
    return f"{100 * share:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def assignments(params: Mapping[str, Any]) -> str:
    """Return parameters in the syntax of `--set`, such as `samples=5,50 keep=3,1`."""
    return " ".join(f"{k}={value_text(v)}" for k, v in params.items() if v is not None)
