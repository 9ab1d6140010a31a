"""Groups of backbones: their methods taken together, and compared as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.boards.study.methods import MethodRuns, clusters_of
from bench.stats.crossed import spread
from bench.stats.many import Answers, Difference, compare_all
from bench.store.fields import Amount, Document, Number, Positive

BACKBONE = "backbone"


class StudyGroup(Document):
    """The methods of a group's backbones on one dataset that are alike in everything else."""

    board: str
    """The dataset and its split."""
    group: str
    """Its name, and its place on the other axes."""
    axes: dict[str, str]
    """As a method's, with the group for the backbone."""
    methods: list[str]
    """Those that are taken together."""
    images: Positive
    """That all of them have."""
    value: Number
    """The mean of the metric over the methods."""
    interval: tuple[Number, Number]
    """95 %, over other images, for these backbones."""
    of_images: Amount
    """The standard deviation of one method's metric over other images."""
    of_backbones: Amount | None = None
    """Over other backbones, on the same images; None: there is one."""
    cost: float
    """Evaluation equivalents per image, the mean over the methods."""


def compare_groups(
    board: str,
    methods: Sequence[MethodRuns],
    groups: Mapping[str, Sequence[str]],
    metric: str,
    margin: float | None,
    whole: bool,
) -> tuple[list[StudyGroup], list[Difference]]:
    """Return the groups of a dataset, and their differences, not corrected yet.

    Args:
        board: the dataset and its split.
        methods: those of the same images.
        groups: the name of each group → its backbones.
        metric: what they are compared in.
        margin: differences below it count as nothing.
        whole: whether the images of a group of the data are drawn together.
    """
    of_backbone = {name: group for group, names in groups.items() for name in names}
    pooled: dict[str, list[MethodRuns]] = {}
    axes: dict[str, dict[str, str]] = {}
    for one in methods:
        if (group := of_backbone.get(one.axes.get(BACKBONE, ""))) is not None:
            place = {**one.axes, BACKBONE: group}
            name = " ".join(place.values())
            pooled.setdefault(name, []).append(one)
            axes[name] = place
    if not pooled:
        return [], []
    varied = [
        axis
        for axis in dict.fromkeys(axis for place in axes.values() for axis in place)
        if len({place.get(axis) for place in axes.values()}) > 1
    ] or [BACKBONE]
    called = {
        name: " ".join(place[axis] for axis in varied if axis in place)
        for name, place in axes.items()
    }
    labels = methods[0].labels
    clusters = clusters_of(methods) if whole else None
    answers, found = [], []
    for name, members in pooled.items():
        said = Answers(called[name], tuple(m for one in members for m in one.answers.members))
        moved = spread(said.of_members(metric, labels), clusters)
        answers.append(said)
        found.append(
            StudyGroup(
                board=board,
                group=said.name,
                axes=axes[name],
                methods=[one.name for one in members],
                images=len(labels),
                value=moved.accuracy,
                interval=moved.interval,
                of_images=moved.of_images,
                of_backbones=moved.of_seeds,  # the first axis of what is resampled
                cost=float(np.mean([one.cost for one in members])),
            )
        )
    return found, compare_all(answers, labels, metric, margin, clusters)
