"""Datasets of items: images with texts of their own, validated before scoring.

Columns of a dataset of items:

image or images   one image, or a list of them
texts             the candidates, a list of texts
label or pairing  index of the right text (for several images and one text: of the right image), or
                  a list of them in `label`, if several are right; `pairing`: a list with the index
                  of each image's right text
group             optional: part of the dataset, for which accuracy is reported separately
sample_id         optional
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from bench.contracts.dataset import (
    MOST_ANSWERS,
    Chance,
    Rows,
    answer_of,
    asks_for_images,
    chance,
    n_answers,
)
from bench.errors import UserError, quoted
from bench.inputs.class_names import ClassNames, normalise_text
from bench.inputs.parsing import check_column, join_names
from bench.inputs.rows import check_ids, entry_of, get_images, make_unique
from bench.inputs.survey import hash_image
from bench.machine.files import LINES, has_control
from bench.machine.libraries import pc


@dataclass(frozen=True)
class ItemTable:
    """Shapes, answers and texts of all items of a split, in the order of its rows."""

    shapes: tuple[tuple[int, int], ...]  # (number of images, number of texts) of each item
    answers: tuple[int, ...]  # as `bench.contracts.dataset` encodes them
    texts: tuple[tuple[str, ...], ...]  # candidates of each item
    right: tuple[tuple[int, ...], ...] = ()
    """Right answers of each item, ascending; empty of one with a single one, or if all have one."""

    def right_of(self, place: int) -> tuple[int, ...]:
        """Return the right answers of an item if it has several, else nothing."""
        return self.right[place] if self.right else ()

    @property
    def names(self) -> ClassNames:
        """Names of the answers of the item that has the most answers."""
        images, texts = max(self.shapes, key=lambda shape: n_answers(*shape))
        if asks_for_images(images, texts):
            names = [f"image {number + 1}" for number in range(images)]
        elif images == 1:
            names = [f"text {number + 1}" for number in range(texts)]
        else:
            names = [
                "texts " + ", ".join(str(text + 1) for text in pairing)
                for pairing in product(range(texts), repeat=images)
            ]
        return ClassNames(tuple(names), tuple(names))

    @property
    def chance(self) -> Chance:
        """Mean over the items of the probability of guessing right."""
        chances = [
            Chance(len(right) / n_answers(*shape)) if right else chance(*shape)
            for shape, right in zip(self.shapes, self.right or [()] * len(self.shapes), strict=True)
        ]
        compared = [
            (c.image, c.group) for c in chances if c.image is not None and c.group is not None
        ]
        answer = sum(c.answer for c in chances) / len(chances)
        if not compared:
            return Chance(answer)
        image, group = (sum(column) / len(compared) for column in zip(*compared, strict=True))
        return Chance(answer, image, group)


def read_items(rows: Rows, column: str, ids: Sequence[str], where: str) -> ItemTable:
    """Read and validate the texts and answers of items, whose columns are listed above.

    `column` holds the images, and `ids` are the items in messages. Raises UserError if the answers
    are missing or an item is invalid.
    """
    columns = rows.column_names
    answer = next((name for name in ("pairing", "label") if name in columns), None)
    if {"pairing", "label"} <= set(columns):
        raise UserError(
            f"{where} has both columns 'label' and 'pairing', which state the right answer twice;"
            " keep one."
        )
    if answer is None:
        raise UserError(
            f"{where} has no column 'label' or 'pairing'; its columns: {join_names(columns)}."
        )
    shapes: list[tuple[int, int]] = []
    answers: list[int] = []
    texts: list[tuple[str, ...]] = []
    several: list[tuple[int, ...]] = []
    fields = zip(ids, _count_images(rows, column), rows["texts"], rows[answer], strict=True)
    for name, images, candidates, right in fields:
        at = f"{where}, item {quoted(name)}"
        texts.append(_check_candidates(candidates, at))
        shape = images, len(texts[-1])
        _check_shape(shape, shapes[0] if shapes else shape, at)
        shapes.append(shape)
        if answer == "label" and isinstance(right, list):
            right = _check_right(right, shape, at)
            several.append(tuple(right) if len(right) > 1 else ())
            right = right[0]
        answers.append(_encode_answer(right, shape, at))
    return ItemTable(
        tuple(shapes), tuple(answers), tuple(texts), tuple(several) if any(several) else ()
    )


def item_column(columns: Iterable[str]) -> str | None:
    """Return the column by which rows are items, whatever their source; None if they are not."""
    return next((name for name in columns if name in ("texts", "images")), None)


def check_classes(columns: Iterable[str], where: str, named: str | None = None) -> None:
    """Raise UserError if rows of a file are items, unless the user `named` their column of labels.

    `columns` are all columns of the file.
    """
    if named is None and (name := item_column(columns)) is not None:
        raise UserError(
            f"{where} has a column {name!r}: its rows are items, whose label is the index of one of"
            " their own texts. Load them with `datasets` and score them with bench.run(…)"
            " (docs/items.md). If they are images of classes, name their column of labels with"
            " --label-column."
        )


def _count_images(rows: Any, column: str) -> list[int]:
    if column == "image":
        return [1] * len(rows)
    table = rows.select_columns([column]).with_format("arrow")
    return [
        count or 0
        for batch in table.iter(batch_size=1000)
        for count in pc.list_value_length(batch[column]).to_pylist()
    ]


def _check_candidates(texts: Any, at: str) -> tuple[str, ...]:
    if not isinstance(texts, list) or not texts:
        raise UserError(f"{at}: expected a list of candidate texts, got {quoted(texts)}.")
    seen: set[str] = set()
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{at}: a candidate must be a text that is not empty.")
        if has_control(text, LINES):
            raise UserError(f"{at}: the text {quoted(text)} has control characters.")
        if normalise_text(text) in seen:
            raise UserError(
                f"{at}: the text {quoted(text)} occurs twice; candidates must differ in more"
                " than case and spaces."
            )
        seen.add(normalise_text(text))
    return tuple(texts)


def _check_shape(shape: tuple[int, int], first: tuple[int, int], at: str) -> None:
    """Check that an item has 2 to `MOST_ANSWERS` answers and as many images as the first item.

    Items of several images must also have as many texts as the first, and not fewer than images
    unless they have one text.
    """
    images, texts = shape
    if images == 0:
        raise UserError(f"{at}: it has no images.")
    if images == 1 and texts == 1:
        raise UserError(f"{at}: with one image and one text there is nothing to decide.")
    if images != first[0] or (images > 1 and shape != first):
        raise UserError(
            f"{at}: it has {images} images and {texts} texts, but the first item has {first[0]}"
            f" and {first[1]}. Items of several images must all have the same shape."
        )
    if images > 1 and 1 < texts < images:
        raise UserError(f"{at}: {images} images need as many texts or more, got {texts}.")
    if n_answers(images, texts) > MOST_ANSWERS:
        raise UserError(
            f"{at}: {images} images and {texts} texts have {n_answers(images, texts):,} answers;"
            f" at most {MOST_ANSWERS:,} are possible."
        )


def _check_right(right: list[Any], shape: tuple[int, int], at: str) -> list[int]:
    """Return the right answers of an item in ascending order (UserError if they are invalid)."""
    images, texts = shape
    if images > 1 and texts > 1:
        raise UserError(
            f"{at}: a list in 'label' names several right texts of one image, or right images of"
            f" one text. The right text of each of {images} images is a list in 'pairing'."
        )
    if not right:
        raise UserError(f"{at}: its list of right answers is empty.")
    for number in right:
        _encode_answer(number if asks_for_images(images, texts) else [number], shape, at)
    if len(set(right)) < len(right):
        raise UserError(f"{at}: its list of right answers names one twice: {right}.")
    if len(right) == n_answers(images, texts):
        raise UserError(f"{at}: all {len(right)} answers are right, so there is nothing to decide.")
    return sorted(right)


def _encode_answer(answer: Any, shape: tuple[int, int], at: str) -> int:
    images, texts = shape
    if asks_for_images(images, texts):
        right, among, kind = [answer], images, "images"
    else:
        right, among, kind = answer if isinstance(answer, list) else [answer], texts, "texts"
        if len(right) != images:
            raise UserError(
                f"{at}: expected a right text for each of {images} images in a column 'pairing',"
                f" got {len(right)}."
            )
    for number in right:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < among:
            raise UserError(
                f"{at}: the right answer must be one of its {among} {kind}, counted from 0, got"
                f" {number!r}."
            )
    if len(set(right)) < len(right):
        raise UserError(f"{at}: two of its images have the same right text.")
    return answer_of(right, among)


def check_images_differ(rows: Any, ids: Sequence[str], where: str) -> None:
    """Raise UserError if an item has the same encoded image twice; rows have undecoded images."""
    for name, row in zip(ids, rows, strict=True):
        first: dict[str, int] = {}
        for place, image in enumerate(get_images(row)):
            if image and first.setdefault(hash_image(image), place) != place:
                raise UserError(
                    f"{where}, item {quoted(name)}: image {place + 1} is image"
                    f" {first[hash_image(image)] + 1} again; the images of an item must differ."
                )


def make_item_ids(rows: Any, where: str) -> tuple[str, ...]:
    """Return a unique id for each row: its own, or a hash (UserError if invalid, or no texts)."""
    check_column("texts", rows.column_names, where)
    feature = rows.features["texts"]
    if getattr(entry_of(feature), "dtype", None) not in ("string", "large_string", "null"):
        raise UserError(
            f"{where}: its column 'texts' holds {quoted(str(feature))}, not lists of candidate"
            " texts. If its rows are images of classes, rename or remove the column."
        )
    if "sample_id" in rows.column_names:
        return check_ids(list(rows["sample_id"]), where)

    def hash_rows() -> Iterator[str]:
        for row in rows:
            content = [*map(hash_image, get_images(row)), *(row["texts"] or [])]
            yield hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    return tuple(make_unique(hash_rows()))
