"""What is said of items beside their accuracy: image and group scores, and every group."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from bench.stats.shares import accuracy_interval
from bench.store.decisions import Decided, as_decisions
from bench.store.documents import Items
from bench.store.summary import Group


class PairScores(TypedDict, total=False):
    """The scores of items with several images, as the metrics call them."""

    text_score: float
    image_score: float
    image_score_ci95: tuple[float, float]
    image_chance: float | None
    group_score: float
    group_score_ci95: tuple[float, float]
    group_chance: float | None


def pair_scores(decided: Decided, items: Items) -> PairScores:
    """Return the scores of items with several images, each with its interval and chance.

    The text score, the share of items in which every image has its text, is the accuracy. Ties are
    wrong, and so are items that failed. Where the strategy does not compare images, or the items
    ask which image fits one text, there is a text score or an accuracy alone.
    """
    decided = as_decisions(decided)
    if items.image_chance is None:
        return {}
    text: PairScores = {"text_score": float(decided.correct.mean())}
    if not items.images_compared:
        return text
    image, group = (
        0 if right is None else int(right.sum())
        for right in (decided.image_right, decided.group_right)
    )
    n = len(decided)
    return {
        **text,
        "image_score": image / n,
        "image_score_ci95": accuracy_interval(image, n),
        "image_chance": items.image_chance,
        "group_score": group / n,
        "group_score_ci95": accuracy_interval(group, n),
        "group_chance": items.group_chance,
    }


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
