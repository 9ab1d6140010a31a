"""A dataset split, loaded and checked: sample ids, labels, images and fingerprint."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bench.contracts.dataset import Item, Rows, Sample
from bench.errors import quoted
from bench.inputs.class_names import ClassNames
from bench.inputs.items import ItemTable
from bench.inputs.pixels import VERSION, PixelsError, decode, is_ordinary
from bench.inputs.prompts import Prompts
from bench.inputs.rows import find_stored_rows, get_images, read_column
from bench.inputs.survey import ImageSurvey, find_source_files, hash_image, survey

Survey = tuple[str, bool]  # fingerprint of a split, and whether all its images are ordinary


@dataclass(frozen=True)
class Split:
    """One split of one dataset, ready to be scored; its images are decoded when they are needed."""

    name: str  # name of the dataset; `version` is that of its spec
    version: int
    split: str
    class_names: ClassNames
    sample_ids: tuple[str, ...]  # [n], unique, in the order of the dataset
    labels: tuple[int, ...]  # [n], class indices, or answers of items
    rows: Rows  # [n]: image (not decoded), label, sample_id and perhaps group
    items: ItemTable | None = None  # shapes and texts, if the rows are items
    border: int = 0  # number of pixels to cut from each side of an image
    survey: Survey | None = None  # that of images which are not here; None to read them
    rest: "Split | None" = None  # the images to learn from, if these are held out of a split

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in words, in the order of the labels."""
        return self.class_names.names

    @cached_property
    def hash_of_groups(self) -> str | None:
        """Hash of the groups of images that are no items, which the fingerprint lacks."""
        if self.items is not None or self.rows is None or "group" not in self.rows.column_names:
            return None
        pairs = zip(self.sample_ids, read_column(self.rows, "group"), strict=True)
        return hashlib.sha256(ascii(sorted(map(str, pairs))).encode()).hexdigest()

    def select(self, places: Sequence[int], split: str | None = None) -> "Split":
        """Return some images that are no items, by default as a part of the same split."""
        return replace(
            self,
            split=split or self.split,
            sample_ids=tuple(self.sample_ids[place] for place in places),
            labels=tuple(self.labels[place] for place in places),
            rows=self.rows.select(places),
            survey=None,
            rest=None,
        )

    @property
    def fingerprint(self) -> str:
        """Hash of ids, labels, images and border, and of items' texts and groups, in any order."""
        return self._survey[0]

    @property
    def decoding(self) -> int | None:
        """Version of the decoding of images that are not ordinary; None if all images are."""
        return None if self._survey[1] else VERSION

    @cached_property
    def _survey(self) -> Survey:
        """The fingerprint, and whether all images are ordinary (see `pixels`)."""
        if self.survey is not None:
            return self.survey
        if self.items is not None:
            lines, ordinary = [], True
            for place, row in enumerate(self.rows):
                facts = [self.sample_ids[place], *self._describe_row(place, row)]
                lines.append(json.dumps(facts))
                ordinary = ordinary and all(map(is_ordinary, get_images(row)))
        else:
            surveyed, places = self._surveyed_images
            lines = [
                f"{sample_id} {label} {surveyed.digest(row)}"
                for sample_id, label, row in zip(self.sample_ids, self.labels, places, strict=True)
            ]
            lines += [f"border {self.border}"] * (self.border > 0)
            ordinary = all(surveyed.is_ordinary(row) for row in places)
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest(), ordinary

    def hash_images(self) -> list[str]:
        """Return the SHA-256 of each encoded image in hex digits. The rows must not be items."""
        surveyed, places = self._surveyed_images
        return [surveyed.digest(row) for row in places]

    @cached_property
    def _surveyed_images(self) -> tuple[ImageSurvey, Sequence[int]]:
        """Hashes of all encoded images, and the positions of this split's rows among them."""
        table, places = find_stored_rows(self.rows)
        return survey(table.column("image"), find_source_files(self.rows, table)), places

    def hash_sample(self, sample_id: str, read: bool = False) -> str:
        """Return a hash of one sample.

        The images of an item are read by every call, others only if `read`; otherwise their hashes
        are those of the survey of the whole split.
        """
        place = self.row_of[sample_id]
        if read or self.items is not None:
            facts = self._describe_row(place, self.rows[place])
        else:
            surveyed, places = self._surveyed_images
            facts = [self.labels[place], surveyed.digest(places[place])]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _describe_row(self, place: int, row: Mapping[str, Any]) -> list[Any]:
        """Return label and image hashes of a row; of an item also its texts and group."""
        if self.items is None:
            return [self.labels[place], hash_image(row["image"])]
        texts, right = self.items.texts[place], self.items.right_of(place)
        label = list(right) or self.labels[place]
        return [label, texts, _group(row), *map(hash_image, get_images(row))]

    def collect_texts(self, sample_ids: Iterable[str]) -> Prompts:
        """Return the distinct texts of some items, in the order of their first occurrence."""
        assert self.items is not None
        first: dict[str, str] = {}
        for sample_id in sample_ids:
            for text in self.items.texts[self.row_of[sample_id]]:
                first.setdefault(text, f"item {quoted(sample_id)}")
        return Prompts(tuple(first), (0,) * len(first), tuple(first.values()))

    def samples(self, sample_ids: Iterable[str], pool: Prompts | None = None) -> Iterator[Sample]:
        """Yield the samples with these ids, one at a time; `sample_ids` is consumed lazily.

        `pool` are the texts that items index into; None for the distinct texts of these items. Then
        `sample_ids` is read at once.
        """
        if self.items is not None and pool is None:
            sample_ids = list(sample_ids)
            pool = self.collect_texts(sample_ids)
        for sample_id in sample_ids:
            place = self.row_of[sample_id]
            row, label = self.rows[place], self.labels[place]
            images, group = self._images_of(row), _group(row)
            if self.items is None or pool is None:
                yield Sample(sample_id, label, images[0], group=group)
                continue
            texts = tuple(pool.index[text] for text in self.items.texts[place])
            item = Item(images, texts, self.items.right_of(place))
            yield Sample(sample_id, label, {}, item, group, cluster=_cluster(item, label))

    @cached_property
    def group_names(self) -> list[str | None] | None:
        """Group of each row; None without groups."""
        if "group" not in self.rows.column_names:
            return None
        return [_group({"group": group}) for group in self.rows["group"]]

    def images(self, sample_id: str) -> tuple[Any, ...]:
        """Return the encoded images of one sample."""
        return self._images_of(self.rows[self.row_of[sample_id]])

    def some_sizes(self, most: int = 16) -> list[tuple[int, int]]:
        """Return width and height of up to `most` images of the split, evenly spread."""
        ids, sizes = self.sample_ids, []
        for sample_id in ids[:: -(-len(ids) // most) or 1]:
            with suppress(PixelsError):
                sizes += [decode(image).size for image in self.images(sample_id)]
        return sizes

    def _images_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        images = get_images(row) if self.items else (row["image"],)
        return tuple({**i, "border": self.border} if self.border and i else i for i in images)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Position of each sample's row."""
        return {sample_id: row for row, sample_id in enumerate(self.sample_ids)}


def _cluster(item: Item, label: int) -> str | None:
    """Return the hash of the image that an item is about: the only one, or that of its one text.

    It is None for an item of several images and texts. One that several images are right for is
    about the first of them.
    """
    images, texts = item.shape
    if images > 1 and texts > 1:
        return None
    return hash_image(item.images[0 if images == 1 else label])[:16]


def _group(row: Mapping[str, Any]) -> str | None:
    group = row.get("group")
    return None if group is None else str(group)
