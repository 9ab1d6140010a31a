"""Fair subsets of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def limited(sample_ids: Sequence[str], labels: Sequence[int], limit: int | None) -> list[str]:
    """Choose `limit` samples: stratified over the classes, nested, independent of the order.

    Samples are ranked within their class by a hash of their id and dealt out class by class in
    rounds, the classes of each round again by a hash, so that no class is always short.
    """
    if limit is None or limit >= len(sample_ids):
        return list(sample_ids)
    by_class: dict[int, list[str]] = {}
    for sample_id, label in zip(sample_ids, labels, strict=True):
        by_class.setdefault(label, []).append(sample_id)
    dealt: list[tuple[int, str, str]] = []
    for label, members in by_class.items():
        for position, sample_id in enumerate(sorted(members, key=_hash)):
            dealt.append((position, _hash(f"{position}:{label}"), sample_id))
    chosen = {sample_id for _, _, sample_id in sorted(dealt)[:limit]}
    return [sample_id for sample_id in sample_ids if sample_id in chosen]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
