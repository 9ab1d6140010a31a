"""Recipes, captions and images: the data of a training, their fixed split, and augmentation."""

from __future__ import annotations

import math
import random
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from PIL import Image, ImageEnhance
from PIL.Image import Image as Picture
from sklearn.model_selection import train_test_split

import bench
from bench.engine.images import preprocess, resize_and_crop

DEFAULT_SHARE = 0.5  # share of captions that are the prompt used in the evaluation
VALIDATION_SHARE = 0.1


class Settings(SimpleNamespace):
    """The settings of a recipe, or of a phase of it: a field per key of the TOML table."""


def read_recipe(name: str) -> Settings:
    """Return the recipe in ``NAME.toml``."""
    recipe = Settings(**tomllib.loads(Path(__file__).with_name(f"{name}.toml").read_text("utf-8")))
    recipe.contrasts = [Settings(**table) for table in recipe.contrasts]
    recipe.captions = Captions(**recipe.captions)
    return recipe


class Captions(NamedTuple):
    """Captions of each class: its names in templates. The first of each is the default prompt."""

    templates: list[str]  # with {} for the name
    names: dict[str, list[str]]  # of each class, in class order
    others: list[str]  # things in no image, so that the text encoder learns other words

    @property
    def prompts(self) -> list[str]:
        """The default prompt of each class, in class order."""
        return [self.templates[0].format(names[0]) for names in self.names.values()]

    def draw(self, rng: random.Random) -> list[str]:
        """Draw a caption for each class, in class order."""
        return [
            self.templates[0].format(names[0])
            if rng.random() < DEFAULT_SHARE
            else rng.choice(self.templates).format(rng.choice(names))
            for names in self.names.values()
        ]

    def draw_others(self, rng: random.Random) -> list[str]:
        """Draw as many captions of other things as there are classes."""
        return [rng.choice(self.templates).format(rng.choice(self.others)) for _ in self.names]


class Part(NamedTuple):
    """A part of a dataset, with its images in RGB and its class indices, int64 [n]."""

    rows: Dataset
    images: list[Picture]
    labels: torch.Tensor


def load(recipe: Settings, data_dir: str | None) -> dict[str, Part]:
    """Return the parts `train`, `validation` (which is held out from training) and `test`."""
    rows, test = (bench.load_dataset(recipe.dataset, part, data_dir) for part in ("train", "test"))
    if recipe.validation_split == "random":
        options = {"stratify": rows["label"], "random_state": recipe.seed}
        positions = np.arange(len(rows))
        train, validation = train_test_split(positions, test_size=VALIDATION_SHARE, **options)
    else:
        held_out = bench.load_dataset(recipe.dataset, recipe.validation_split, data_dir)
        chosen = np.isin(rows["sample_id"], held_out["sample_id"])
        train, validation = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    parts = {"train": rows.select(train), "validation": rows.select(validation), "test": test}
    return {name: _part(rows) for name, rows in parts.items()}


def _part(rows: Dataset) -> Part:
    images = [image.convert("RGB") for image in rows["image"]]
    return Part(rows, images, torch.tensor(rows["label"]))


def augmented(images: list[Picture], recipe: Settings, rng: np.random.Generator) -> torch.Tensor:
    """Return the pixels of a random view of each image, float32 ``[n, 3, size, size]``."""
    view = {"scan": _scan, "aerial": _aerial}[recipe.augmentation]
    return preprocess([view(image, recipe.resolution, rng) for image in images], recipe.resolution)


def _scan(image: Picture, size: int, rng: np.random.Generator) -> Picture:
    """Shift, turn and scale an image a little."""
    square = resize_and_crop(image, size)
    dx, dy = rng.uniform(-2, 2, 2)
    rotated = square.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
    scale = rng.uniform(0.92, 1.08)
    shift = (1 - scale) * size / 2
    matrix = (scale, 0, shift + dx, 0, scale, shift + dy)
    return rotated.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def _aerial(image: Picture, size: int, rng: np.random.Generator) -> Picture:
    """Crop, flip and turn an image by quarters, and change its brightness, contrast and colour."""
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
