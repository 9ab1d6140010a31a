"""The images that a backbone learns from: another split than the scored one, without its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UserError, quoted, warn_user
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.split import Split

if TYPE_CHECKING:
    from PIL.Image import Image

USUAL = "train"  # the split that is learned from unless the user says otherwise


@dataclass(frozen=True)
class FitSplit:
    """A split to learn from.

    `left_out` is the number of images that are scored too.
    """

    split: Split
    left_out: int = 0

    def images(self) -> Iterator[Image]:
        """Yield each image, decoded; `UserError`: one cannot be read."""
        for sample in self.split.samples(self.split.sample_ids):
            try:
                yield decode(sample.image)
            except PixelsError as error:
                raise UserError(
                    f"The image {quoted(sample.sample_id)} of split {self.split.split!r}, which"
                    f" is to be learned from, cannot be read: {error}."
                ) from None

    def texts(self, texts: Sequence[str]) -> list[str]:
        """Return the text of each image's class."""
        return [texts[label] for label in self.split.labels]


def load_fit_split(
    source: DataSource, name: str | None, scored: Split | None, learner: str
) -> FitSplit:
    """Load the split, by default `train`, that a backbone, in messages `learner`, learns from.

    `scored` is the split that is scored; None: pictures of the user's own are. A UserError if they
    are the same, have other classes, or a class has no image.
    """
    chosen, spec = name or USUAL, source.spec
    if spec.splits and chosen not in spec.splits:
        raise UserError(
            f"{learner} learns from labelled images, and dataset {spec.name!r} has no split"
            f" {quoted(chosen)}; it has: {', '.join(spec.splits)}. --fit-split names one that is"
            " not scored."
        )
    if scored is not None and scored.split == chosen:
        raise UserError(
            f"{learner} would learn from {quoted(chosen)}, the split that is scored. --fit-split"
            " names another split to learn from, or --split another one to score."
        )
    try:
        split = load_split(source, chosen)
    except UserError as error:
        raise UserError(
            f"{learner} learns from labelled images of a split, {quoted(chosen)}: {error}"
            " --fit-split names another one; in a folder, train/ and test/ are splits."
        ) from None
    fit = FitSplit(split)
    if scored is not None:
        if split.classes != scored.classes:
            raise UserError(
                f"The split {quoted(chosen)}, which is to be learned from, has other classes than"
                f" {scored.split!r}: {len(split.classes)} and {len(scored.classes)}."
            )
        fit = _without(split, scored)
    counts = np.bincount(fit.split.labels, minlength=len(split.classes))
    if absent := [split.classes[label] for label in np.flatnonzero(counts == 0)]:
        raise UserError(
            f"The split {quoted(chosen)} has no image to learn {quoted(absent[0])} from"
            + (f", and {len(absent) - 1} other classes" if len(absent) > 1 else "")
            + f". {learner} needs one of every class."
        )
    return fit


def _without(split: Split, scored: Split) -> FitSplit:
    held_out = set(scored.digests())
    kept = [n for n, digest in enumerate(split.digests()) if digest not in held_out]
    left_out = len(split.sample_ids) - len(kept)
    if not left_out:
        return FitSplit(split)
    if not kept:
        raise UserError(
            f"All images of split {split.split!r}, which is to be learned from, are scored too."
        )
    warn_user(
        f"{left_out} of {len(split.sample_ids)} images of split {split.split!r} are scored too,"
        " and are not learned from."
    )
    without = replace(
        split,
        sample_ids=tuple(split.sample_ids[n] for n in kept),
        labels=tuple(split.labels[n] for n in kept),
        rows=split.rows.select(kept),
    )
    return FitSplit(without, left_out)
