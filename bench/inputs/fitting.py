"""Training images for backbones that learn: another split, without images that are scored."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL.Image import Image

from bench.errors import UserError, quoted, warn_user
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.split import Split

DEFAULT_FIT_SPLIT = "train"  # the default split to learn from


def images_to_learn(split: Split) -> Iterator[Image]:
    """Yield each image of a split, decoded. Raises UserError if one cannot be read."""
    for sample in split.samples(split.sample_ids):
        try:
            yield decode(sample.image)
        except PixelsError as error:
            raise UserError(
                f"The image {quoted(sample.sample_id)} of {split.split!r}, the split to learn from,"
                f" cannot be read: {error}."
            ) from None


def load_fit_split(
    source: DataSource, name: str | None, scored: Split | None, learner: str
) -> Split:
    """Load the split that a backbone learns from, `train` by default.

    Images that are also in `scored` are left out with a warning; None if the images are the user's.
    Raises UserError if there is no such split, it is the scored one or has other classes, or a
    class has no image. `learner` is the backbone in messages.
    """
    chosen = name or DEFAULT_FIT_SPLIT
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
    if scored is not None:
        if split.classes != scored.classes:
            raise UserError(
                f"The split to learn from, {quoted(chosen)}, has other classes than the scored one,"
                f" {scored.split!r}: {len(split.classes)} and {len(scored.classes)}."
            )
        split = _drop_scored(split, scored)
    counts = np.bincount(split.labels, minlength=len(split.classes))
    if absent := [split.classes[label] for label in np.flatnonzero(counts == 0)]:
        raise UserError(
            f"The split {quoted(chosen)} has no image to learn {quoted(absent[0])} from"
            + (f", and {len(absent) - 1} other classes" if len(absent) > 1 else "")
            + f". {learner} needs one of every class."
        )
    return split


def _drop_scored(split: Split, scored: Split) -> Split:
    held_out = set(scored.hash_images())
    remaining = [n for n, digest in enumerate(split.hash_images()) if digest not in held_out]
    left_out = len(split.sample_ids) - len(remaining)
    if not left_out:
        return split
    if not remaining:
        raise UserError(f"All images of {split.split!r}, the split to learn from, are scored, too.")
    warn_user(
        f"{left_out} of {len(split.sample_ids)} images of split {split.split!r} are scored too,"
        " and are not learned from."
    )
    return replace(
        split,
        sample_ids=tuple(split.sample_ids[n] for n in remaining),
        labels=tuple(split.labels[n] for n in remaining),
        read=lambda: split.rows.select(remaining),
        survey=None,
    )
