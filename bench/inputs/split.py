"""One split of a dataset as the toolkit scores it: its samples, classes and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Item, Sample
from bench.errors import quoted
from bench.inputs.class_names import ClassNames
from bench.inputs.items import ItemTable
from bench.inputs.pixels import VERSION, is_ordinary
from bench.inputs.prompts import Prompts
from bench.inputs.rows import images_of, stored_rows
from bench.inputs.survey import Surveyed, digest, files_behind, survey

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Split:
    """One split of one dataset, ready to be scored."""

    name: str  # the dataset's name; `version` is its spec's, `split` the split's name
    version: int
    split: str
    named: ClassNames
    sample_ids: tuple[str, ...]  # [n], unique, in the dataset's order
    labels: tuple[int, ...]  # [n], class indices, or the answers of items
    rows: datasets.Dataset  # [n], with the columns image (not decoded), label and sample_id
    items: ItemTable | None = None  # the texts of a dataset whose rows are items
    group_columns: tuple[str, ...] = ()  # the columns that divide samples into groups
    border: int = 0  # number of pixels that are cut from each side of an image
    survey: tuple[str, bool] | None = None
    """Fingerprint, and whether all images are ordinary, where a reader has them; None: every image
    is read once for them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in words, in label order."""
        return self.named.names

    @property
    def fingerprint(self) -> str:
        """Hash of ids, labels, image bytes and a border that is cut; independent of the order."""
        return self._surveyed[0]

    @property
    def decoding(self) -> int | None:
        """How images are decoded that are not ordinary; None: all of these are."""
        return None if self._surveyed[1] else VERSION

    @cached_property
    def _surveyed(self) -> tuple[str, bool]:
        """The fingerprint, and whether all images are ordinary; reads each image once."""
        if self.survey is not None:
            return self.survey
        if self.items is not None:
            lines, ordinary = [], True
            for place, row in enumerate(self.rows):
                facts = [self.sample_ids[place], *self._facts(place, row)]
                lines.append(json.dumps(facts))
                ordinary = ordinary and all(map(is_ordinary, images_of(row)))
        else:
            surveyed, places = self._images
            lines = [
                f"{sample_id} {label} {surveyed.digest(row)}"
                for sample_id, label, row in zip(self.sample_ids, self.labels, places, strict=True)
            ]
            lines += [f"border {self.border}"] * (self.border > 0)
            ordinary = all(surveyed.ordinary(row) for row in places)
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest(), ordinary

    def digests(self) -> list[str]:
        """Return the SHA-256 of each row's image as it is stored, in hex digits; not of items."""
        surveyed, places = self._images
        return [surveyed.digest(row) for row in places]

    @cached_property
    def _images(self) -> tuple[Surveyed, Sequence[int]]:
        """What is known of each stored image, and where this split's are among them."""
        table, places = stored_rows(self.rows)
        return survey(table.column("image"), files_behind(self.rows, table)), places

    def content(self, sample_id: str, read: bool = False) -> str:
        """Return a hash of one sample; its images are `read`, or their earlier hashes are used."""
        place = self.row_of[sample_id]
        if read or self.items is not None:
            facts = self._facts(place, self.rows[place])
        else:
            surveyed, places = self._images
            facts = [self.labels[place], surveyed.digest(places[place])]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _facts(self, place: int, row: Mapping[str, Any]) -> list[Any]:
        """Return the label of a row and the hashes of its images; texts and group of an item."""
        if self.items is None:
            return [self.labels[place], digest(row["image"])]
        texts = self.items.texts[place]
        return [self.labels[place], texts, self._group(row), *map(digest, images_of(row))]

    def pool(self, sample_ids: Iterable[str]) -> Prompts:
        """Return the texts of some items, each once, in the order in which they first occur."""
        assert self.items is not None
        first: dict[str, str] = {}
        for sample_id in sample_ids:
            for text in self.items.texts[self.row_of[sample_id]]:
                first.setdefault(text, f"item {quoted(sample_id)}")
        return Prompts(tuple(first), (0,) * len(first), tuple(first.values()))

    def samples(self, sample_ids: Iterable[str], pool: Prompts | None = None) -> Iterator[Sample]:
        """Yield the samples with these ids, one at a time; no id is asked for before its turn.

        `pool` are the texts that those of items are among; None: the texts of these items.
        """
        if self.items is not None and pool is None:
            sample_ids = list(sample_ids)
            pool = self.pool(sample_ids)
        for sample_id in sample_ids:
            place = self.row_of[sample_id]
            row, label = self.rows[place], self.labels[place]
            images, group = self._images_of(row), self._group(row)
            if self.items is None or pool is None:
                yield Sample(sample_id, label, images[0], group=group)
                continue
            texts = tuple(pool.index[text] for text in self.items.texts[place])
            yield Sample(sample_id, label, {}, Item(images, texts), group)

    def images(self, sample_id: str) -> tuple[Any, ...]:
        """Return the encoded images of one sample."""
        return self._images_of(self.rows[self.row_of[sample_id]])

    def _images_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        images = images_of(row) if self.items else (row["image"],)
        return tuple({**i, "border": self.border} if self.border and i else i for i in images)

    def _group(self, row: Mapping[str, Any]) -> str | None:
        """Return the group of a row, None where it has none: of several columns all of them."""
        values = [(name, row[name]) for name in self.group_columns if row[name] is not None]
        if self.group_columns == ("group",):
            return str(values[0][1]) if values else None
        return ", ".join(f"{name} {value}" for name, value in values) or None

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each sample."""
        return {sample_id: row for row, sample_id in enumerate(self.sample_ids)}
