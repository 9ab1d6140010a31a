"""One split of a dataset as the toolkit scores it: its samples, classes and fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Sample
from bench.inputs.class_names import ClassNames
from bench.inputs.items import ItemRows
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
    labels: tuple[int, ...]  # [n], class indices
    rows: datasets.Dataset  # [n], with the columns image (not decoded), label and sample_id
    items: ItemRows | None = None  # the texts and images of a dataset whose rows are items
    group_columns: tuple[str, ...] = ()  # the columns that divide ordinary images into groups
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
        from bench.inputs.pixels import VERSION

        return None if self._surveyed[1] else VERSION

    @cached_property
    def _surveyed(self) -> tuple[str, bool]:
        """The fingerprint, and whether all images are ordinary; reads each image once."""
        if self.survey is not None:
            return self.survey
        if self.items is not None:
            return self.items.surveyed()
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
        row = self.row_of[sample_id]
        if self.items is not None:
            table = self.items.table
            facts = [table.answers[row], table.texts[row], table.groups[row]]
            facts += map(digest, self.images(sample_id))
        elif read:
            facts = [self.labels[row], digest(self.rows[row]["image"])]
        else:
            surveyed, places = self._images
            facts = [self.labels[row], surveyed.digest(places[row])]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def samples(self, sample_ids: Iterable[str], pool: Prompts | None = None) -> Iterator[Sample]:
        """Yield the samples with these ids, one at a time; no id is asked for before its turn.

        `pool` are the texts that those of items are among; None: the texts of these items.
        """
        if self.items is not None:
            if pool is None:
                sample_ids = list(sample_ids)
                pool = self.items.pool(sample_ids)
            for sample_id in sample_ids:
                yield self.items.sample(sample_id, pool)
            return
        for sample_id in sample_ids:
            place = self.row_of[sample_id]
            row = self.rows[place]
            image = self._cut(row["image"])
            yield Sample(sample_id, self.labels[place], image, group=self._group(row))

    def _cut(self, image: Any) -> Any:
        return {**image, "border": self.border} if self.border and image else image

    def _group(self, row: Mapping[str, Any]) -> str | None:
        """Return the group of a row, None where it has none: of several columns all of them."""
        values = [(name, row[name]) for name in self.group_columns if row[name] is not None]
        if self.group_columns == ("group",):
            return str(values[0][1]) if values else None
        return ", ".join(f"{name} {value}" for name, value in values) or None

    def images(self, sample_id: str) -> tuple[Any, ...]:
        """Return the encoded images of one sample."""
        row = self.rows[self.row_of[sample_id]]
        return tuple(map(self._cut, images_of(row)))

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each sample."""
        return {sample_id: row for row, sample_id in enumerate(self.sample_ids)}
