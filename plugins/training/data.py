"""The images of each dataset, split once and for all, and their augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from PIL.Image import Image as Picture
from sklearn.model_selection import train_test_split

import bench
from bench.discovery.loading import load_plugins
from bench.engine.images import resize_and_crop
from bench_plugins.training.recipes import Recipe

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class LabelledImages:
    """Images of one part of a split, with their class indices and sample ids."""

    images: list[Picture]
    labels: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class SplitParts:
    """The three parts. Validation is taken from the training split and never trained on."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def load(recipe: Recipe, data_dir: Path | None, seed: int) -> SplitParts:
    """Read the dataset, its validation split or a tenth of the training images held out."""
    whole, test = (read(recipe.dataset, split, data_dir) for split in ("train", "test"))
    if "validation" in load_plugins().datasets.get(recipe.dataset).splits:
        held_out = set(read(recipe.dataset, "validation", data_dir).ids)
        chosen = np.array([sample_id in held_out for sample_id in whole.ids])
        train, validation = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    else:
        options = {"test_size": VALIDATION_SHARE, "stratify": whole.labels, "random_state": seed}
        train, validation = train_test_split(np.arange(len(whole)), **options)

    def part(indices: np.ndarray) -> LabelledImages:
        return LabelledImages(
            [whole.images[i] for i in indices],
            whole.labels[indices],
            [whole.ids[i] for i in indices],
        )

    return SplitParts(part(train), part(validation), test)


def read(dataset: str, split: str, data_dir: Path | None) -> LabelledImages:
    """Return a split as the toolkit loads it."""
    rows = bench.load_dataset(dataset, split, str(data_dir) if data_dir else None)
    images = [image.convert("RGB") for image in rows["image"]]
    return LabelledImages(images, np.array(rows["label"], dtype=np.int64), list(rows["sample_id"]))


def augment(image: Picture, recipe: Recipe, rng: np.random.Generator) -> Picture:
    """A random view of a training image: digits are moved, land is cropped, mirrored and relit."""
    size = recipe.resolution
    if recipe.dataset == "digits":
        square = resize_and_crop(image, size)
        dx, dy = rng.uniform(-2, 2, 2)
        turned = square.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
        scale = rng.uniform(0.92, 1.08)
        shift = (1 - scale) * size / 2
        matrix = (scale, 0, shift + dx, 0, scale, shift + dy)
        return turned.transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )
    width, height = image.size
    area, aspect = rng.uniform(0.5, 1.0), math.exp(rng.uniform(-0.2, 0.2))
    crop_w = min(width, round(width * (area * aspect) ** 0.5))
    crop_h = min(height, round(height * (area / aspect) ** 0.5))
    left, top = rng.integers(0, width - crop_w + 1), rng.integers(0, height - crop_h + 1)
    box = (left, top, left + crop_w, top + crop_h)
    view = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if turns := rng.integers(0, 4):
        view = view.transpose(getattr(Image.Transpose, f"ROTATE_{90 * turns}"))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = enhance(view).enhance(rng.uniform(0.8, 1.2))
    return view
