"""The dataset contract: what a dataset plugin returns, and one sample of it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts.items import Item, StoredImage


@dataclass(frozen=True)
class Sample:
    """One labelled image, still encoded, or one item.

    Attributes:
        sample_id: unique.
        label: the class index of an image, or the answer of an item.
        image: encoded; of an item, nothing.
        item: its images and candidates; None: one image and the shared prompts.
        group: the part of the dataset that it belongs to, if it has such parts.
        candidates: the classes that are scored, best first of another run; None: all of them.
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
