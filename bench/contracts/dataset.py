"""The dataset contract: a sample, which is an image with the shared prompts or an item.

An item has I images and T texts. Each image has one right text, another for every image. The
answer of an item is the text of each image, image by image, as digits in base T: of two images and
two texts, 1 says that the first image has text 0 and the second text 1. Of one image it is the
text's index. Several images and one text ask which image fits, and the answer is the image's index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import factorial
from typing import TypedDict

MOST_ANSWERS = 4096  # per item; a decision ranks all of them


class StoredImage(TypedDict, total=False):
    """An image as `datasets` stores it, still encoded: its bytes, or the path of its file."""

    bytes: bytes | None
    path: str | None
    border: int
    """Pixels that are cut from each side."""
    corruption: tuple[str, str]
    """How it is corrupted, as `fog:3`, and the name from which what is random is made."""


@dataclass(frozen=True)
class Item:
    """The encoded images of one item (None: missing), and its texts by index in the run's pool."""

    images: tuple[StoredImage | None, ...]
    texts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(I, T), the numbers of images and texts."""
        return len(self.images), len(self.texts)


def asks_for_images(images: int, texts: int) -> bool:
    """Tell whether an item asks which image fits: several images, one text."""
    return images > 1 and texts == 1


def n_answers(images: int, texts: int) -> int:
    """Return the number of answers of an item of so many images and texts."""
    return images if asks_for_images(images, texts) else texts**images


def answer_of(pairing: Sequence[int], texts: int) -> int:
    """Return the answer that gives each image its text of `pairing`."""
    answer = 0
    for text in pairing:
        answer = answer * texts + text
    return answer


def pairing_of(answer: int, images: int, texts: int) -> tuple[int, ...]:
    """Return the text of each image; the inverse of `answer_of`."""
    digits = []
    for _ in range(images):
        answer, digit = divmod(answer, texts)
        digits.append(digit)
    return tuple(digits[::-1])


@dataclass(frozen=True)
class Chance:
    """The probabilities that a guess is right.

    Attributes:
        answer: the whole answer: every text, or the image where there is one text.
        image: the image of every text, in an item of several images.
        group: both.
    """

    answer: float
    image: float | None = None
    group: float | None = None


def chance(images: int, texts: int) -> Chance:
    """Return the chance of an item of so many images and texts, where every score is random.

    The group is right if the score of each of the I pairs is the best of its image and of its text.
    With u_1 > … > u_I the pairs' distances from the worst score, the probability is I! times the
    integral of the product of u_k ** (2 (k - 1) + T - I): 1/6 for two pairs.
    """
    if images == 1 or texts == 1:
        return Chance(1 / n_answers(images, texts))
    group, exponent = float(factorial(images)), 0
    for k in range(images, 0, -1):
        exponent += 2 * (k - 1) + texts - images + 1
        group /= exponent
    return Chance(texts**-images, images**-images, group)


@dataclass(frozen=True)
class Sample:
    """One labelled image, still encoded, or one item.

    Attributes:
        label: the class index of an image, or the answer of an item.
        image: the encoded image; empty in an item.
        item: images and texts; None: one image and the shared prompts.
        group: the part of the dataset to which the sample belongs, if there are parts.
        candidates: the classes to score, ranked as by another run; None: all classes.
    """

    sample_id: str
    label: int
    image: StoredImage
    item: Item | None = None
    group: str | None = None
    candidates: tuple[int, ...] | None = None

    @property
    def images(self) -> tuple[StoredImage | None, ...]:
        """Every image."""
        return (self.image,) if self.item is None else self.item.images

    def with_images(self, images: Sequence[StoredImage | None]) -> Sample:
        """Return the sample with other images, as many as it has."""
        if self.item is None:
            return replace(self, image=images[0] or {})
        return replace(self, item=replace(self.item, images=tuple(images)))
