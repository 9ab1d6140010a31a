"""The dataset contract: a sample is an image that is scored with the shared prompts, or an item.

An item has I images and T texts of its own, and each image has exactly one right text. The answer
of an item is a number in base T whose digits are the texts of its images, first image first. With
two images and two texts, answer 1 gives text 0 to the first image and text 1 to the second. With
one image, the answer is the index of its text. An item of several images and one text asks which
image fits the text, and its answer is the index of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import factorial
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import datasets
    import pyarrow

    Rows = datasets.Dataset
else:
    Rows = object  # the library takes a second to import

MOST_ANSWERS = 4096  # maximum per item; a decision ranks all of them


class StoredImage(TypedDict, total=False):
    """An image as `datasets` stores it, not decoded: its bytes or the path of its file."""

    bytes: bytes | None
    path: str | None
    border: int
    """Number of pixels cut from each side."""
    corruption: tuple[str, str]
    """Corruption such as `fog:3`, and the name from which its randomness is derived."""


@dataclass(frozen=True)
class Row:
    """One labelled image, or one item, as a reader lists it; the toolkit checks it.

    Attributes:
        id: the sample id.
        image: the encoded image; a tuple of them for an item of several images.
        label: name of the class, or its number as text; for an item the index of its right text, or
            a tuple with the index of each image's right text.
        group: part of the dataset that the image belongs to, if the dataset has parts.
        at: place in messages, such as `FILE:3`, if it has one of its own.
        texts: candidates of an item.
        kept: further columns.
    """

    id: str
    image: StoredImage | tuple[StoredImage | None, ...] | None
    label: str | int | tuple[int, ...]
    group: str | None = None
    at: str = ""
    texts: tuple[str, ...] | None = None
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """What `load` may return in place of a `datasets.Dataset`: rows, and what their labels mean.

    Attributes:
        rows: the rows, or an Arrow table of their columns as `datasets` stores it.
        split: name of the split.
        where: place of the rows in messages.
        class_names: returns the names of all classes in order, or None if they are those of the
            labels.
        numbered: whether labels that are all whole numbers are numbers, such as places in
            `class_names`, and not names.
        files: files that determine the rows completely, if there are such.
        elsewhere: returns the labels of other splits, whose names are classes too.
    """

    rows: list[Row] | pyarrow.Table
    split: str | None = None
    where: str = ""
    class_names: Callable[[], Sequence[str] | None] = lambda: None
    numbered: bool = False
    files: tuple[str, ...] = ()
    elsewhere: Callable[[], Iterable[object]] = tuple


def file_image(path: object) -> StoredImage:
    """Return an encoded image that is a file."""
    return {"bytes": None, "path": str(path)}


@dataclass(frozen=True)
class Item:
    """The encoded images of an item (None if missing) and its texts, indices into all texts.

    `right` are its right answers, if several are right; empty if only the label is.
    """

    images: tuple[StoredImage | None, ...]
    texts: tuple[int, ...]
    right: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """(I, T), the numbers of images and texts."""
        return len(self.images), len(self.texts)


def asks_for_images(images: int, texts: int) -> bool:
    """Return whether an item asks which image fits: it has several images and one text."""
    return images > 1 and texts == 1


def n_answers(images: int, texts: int) -> int:
    """Return the number of possible answers of an item."""
    return images if asks_for_images(images, texts) else texts**images


def answer_of(pairing: Sequence[int], texts: int) -> int:
    """Return the answer that assigns text `pairing[i]` to image i."""
    answer = 0
    for text in pairing:
        answer = answer * texts + text
    return answer


def pairing_of(answer: int, images: int, texts: int) -> tuple[int, ...]:
    """Return the text of each image for an answer; the inverse of `answer_of`."""
    digits = []
    for _ in range(images):
        answer, digit = divmod(answer, texts)
        digits.append(digit)
    return tuple(digits[::-1])


@dataclass(frozen=True)
class Chance:
    """Probabilities that random guessing is right.

    Attributes:
        answer: of the whole answer: all texts, or the image if there is one text.
        image: of the image of every text, in an item of several images.
        group: of both.
    """

    answer: float
    image: float | None = None
    group: float | None = None


def chance(images: int, texts: int) -> Chance:
    """Return the probabilities of guessing right if every score is random.

    `group` requires that each of the I right pairs has the best score of its image and of its text.
    With u_1 > … > u_I the ranks of these pairs from the worst score, scaled to [0, 1], the
    probability is I! times the integral of the product of u_k ** (2 (k - 1) + T - I): 1/6 for two
    pairs.
    """
    if images == 1 or texts == 1:
        return Chance(1 / n_answers(images, texts))
    group, exponent = float(factorial(images)), 0
    for k in range(images, 0, -1):  # ∫ u**a du = u**(a + 1) / (a + 1), over u_I first
        exponent += 2 * (k - 1) + texts - images + 1
        group /= exponent
    return Chance(texts**-images, images**-images, group)


@dataclass(frozen=True)
class Shortlisted:
    """What another run decided of a sample: the answers that are scored, and what follows them.

    Attributes:
        candidates: the answers to score, best first.
        rest: other answers of an item, best first, as far as the other run keeps their order.
        rank: rank of the item's right answer in the other run, if it keeps that.
    """

    candidates: tuple[int, ...]
    rest: tuple[int, ...] = ()
    rank: int | None = None


@dataclass(frozen=True)
class Sample:
    """One labelled image that is not decoded yet, or one item.

    Attributes:
        label: class index of the image, or answer of the item.
        image: the encoded image; empty for an item.
        item: images and texts of the item; None for an image that is scored with the shared
            prompts.
        group: part of the dataset that the sample belongs to, if the dataset has parts.
        shortlisted: the answers to score, from another run; None for all.
        cluster: hash of the image that a query of an item is about; queries about the same image
            depend on each other.
    """

    sample_id: str
    label: int
    image: StoredImage
    item: Item | None = None
    group: str | None = None
    shortlisted: Shortlisted | None = None
    cluster: str | None = None

    @property
    def candidates(self) -> tuple[int, ...] | None:
        """Answers to score, best first in another run; None for all."""
        return None if self.shortlisted is None else self.shortlisted.candidates

    @property
    def right(self) -> tuple[int, ...]:
        """All right answers."""
        return (self.item and self.item.right) or (self.label,)

    @property
    def image_numbers(self) -> Sequence[int]:
        """Places of the images to score in the item: all of them, or the candidates."""
        if self.item is None:
            return range(1)
        if self.candidates is not None and asks_for_images(*self.item.shape):
            return sorted(self.candidates)
        return range(len(self.item.images))

    @property
    def images(self) -> tuple[StoredImage | None, ...]:
        """The images to score."""
        if self.item is None:
            return (self.image,)
        return tuple(self.item.images[number] for number in self.image_numbers)

    def with_images(self, images: Sequence[StoredImage | None]) -> Sample:
        """Return a copy with its images replaced by as many others."""
        if self.item is None:
            return replace(self, image=images[0] or {})
        return replace(self, item=replace(self.item, images=tuple(images)))
