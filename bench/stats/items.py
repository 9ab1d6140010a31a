"""What is said of items beside their accuracy: image and group scores, and every group."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.stats.shares import accuracy_interval
from bench.store.decisions import Decided, as_decisions
from bench.store.documents import Group, Items


def pair_scores(decided: Decided, items: Items) -> dict[str, Any]:
    """Return the scores of items with several images, each with its interval and chance.

    The text score, the share of items in which every image has its text, is the accuracy. Ties are
    wrong, and so are items that failed. Where the strategy does not compare images, or the items
    ask which image fits one text, there is a text score or an accuracy alone.
    """
    decided = as_decisions(decided)
    if items.image_chance is None:
        return {}
    found: dict[str, Any] = {"text_score": float(decided.correct.mean())}
    if not items.images_compared:
        return found
    for name, right, expected in (
        ("image", decided.image_right, items.image_chance),
        ("group", decided.group_right, items.group_chance),
    ):
        count = 0 if right is None else int(right.sum())
        found[f"{name}_score"] = count / len(decided)
        found[f"{name}_score_ci95"] = accuracy_interval(count, len(decided))
        found[f"{name}_chance"] = expected
    return found


def per_group(decided: Decided) -> list[Group]:
    """Return the accuracy of each group with its 95 % Wilson interval, the worst first."""
    decided = as_decisions(decided)
    if decided.groups is None:
        return []
    names = np.array([name or "" for name in decided.groups.to_pylist()])
    found = []
    for name in sorted(set(names.tolist()) - {""}):
        right = decided.correct[names == name]
        found.append(
            Group(
                group=name,
                n=len(right),
                accuracy=float(right.mean()),
                accuracy_ci95=accuracy_interval(int(right.sum()), len(right)),
            )
        )
    return sorted(found, key=lambda group: group.accuracy)


def worst_group(decided: Decided) -> dict[str, Group]:
    """Return the group with the lowest accuracy under its name in the metrics; {}: no groups."""
    groups = per_group(decided)
    return {"worst_group": groups[0]} if groups else {}
