"""Training data: the images of each dataset, their fixed split, augmentation and captions."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from PIL.Image import Image as Picture
from sklearn.model_selection import train_test_split
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

import bench
from bench.discovery.loading import load_plugins
from bench.engine.images import preprocess, resize_and_crop
from bench.machine.files import read_toml
from bench_plugins.training.recipes import Recipe

NULL_CAPTION = ""
DEFAULT_SHARE = 0.5  # share of captions that are the prompt used in the evaluation


@dataclass(frozen=True)
class Captions:
    """Captions of each class: its names in templates. The first of each is the default prompt."""

    templates: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]  # of each class, in class order
    others: tuple[str, ...]  # things in no image, so that the text encoder learns other words

    @property
    def prompts(self) -> list[str]:
        """The default prompt of each class, in class order."""
        return [self.templates[0].format(names[0]) for names in self.names]

    def draw(self, rng: random.Random) -> list[str]:
        """Draw a caption for each class, in class order; half of them are the default prompt."""

        def caption(names: tuple[str, ...]) -> str:
            if rng.random() < DEFAULT_SHARE:
                return self.templates[0].format(names[0])
            return rng.choice(self.templates).format(rng.choice(names))

        return [caption(names) for names in self.names]

    def draw_others(self, rng: random.Random) -> list[str]:
        """Draw as many captions of other things as there are classes; none without `others`."""
        count = len(self.names) if self.others else 0
        return [rng.choice(self.templates).format(rng.choice(self.others)) for _ in range(count)]

    def __iter__(self) -> Iterator[str]:
        """Yield all captions of the classes."""
        for names in self.names:
            for template in self.templates:
                yield from (template.format(name) for name in names)


def read_captions(recipe: Recipe) -> Captions:
    """Return the captions of a recipe: the default prompts of its dataset, and those declared."""
    declared = read_toml(files(__package__) / "captions.toml")[recipe.name]
    spec = load_plugins().datasets.get(recipe.dataset)
    return Captions(
        templates=(spec.template.replace("{class}", "{}"), *declared["templates"]),
        names=tuple((spec.phrases.get(c, c), *declared["names"][c]) for c in spec.classes or ()),
        others=tuple(declared.get("others", ())),
    )


def train_tokenizer(captions: Captions, length: int, folder: Path) -> CLIPTokenizer:
    """Train a byte-level BPE tokenizer on the captions and save it in CLIP's layout.

    The vocabulary starts with all 256 bytes, both within and at the end of a word, so that any text
    can be encoded. `length` is the maximum number of tokens of a text.
    """
    corpus = sorted({word for caption in captions for word in caption.lower().split()})
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + "</w>" for byte in alphabet), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=merges,
        model_max_length=length,
    )
    tokenizer.save_pretrained(folder)
    # vocab.json and merges.txt, for older versions of transformers.
    tokenizer.backend_tokenizer.model.save(str(folder))
    return tokenizer


VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class LabelledImages:
    """RGB images, with their class indices, int64 [n], and sample ids."""

    images: list[Picture]
    labels: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class SplitParts:
    """The three parts of the data. Validation images come from the training split."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def load(recipe: Recipe, data_dir: Path | None, seed: int) -> SplitParts:
    """Read the dataset and hold out validation images from its training split.

    They are the dataset's validation split if it has one, otherwise a stratified random tenth.
    """
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
    """Load a split with the toolkit and convert its images to RGB."""
    rows = bench.load_dataset(dataset, split, str(data_dir) if data_dir else None)
    images = [image.convert("RGB") for image in rows["image"]]
    return LabelledImages(images, np.array(rows["label"], dtype=np.int64), list(rows["sample_id"]))


def augmented(images: list[Picture], recipe: Recipe, rng: np.random.Generator) -> torch.Tensor:
    """Return the pixels of a random view of each image, float32 ``[n, 3, size, size]``."""
    return preprocess([_view(image, recipe, rng) for image in images], recipe.resolution)


def _view(image: Picture, recipe: Recipe, rng: np.random.Generator) -> Picture:
    size = recipe.resolution
    if recipe.dataset == "digits":
        square = resize_and_crop(image, size)
        dx, dy = rng.uniform(-2, 2, 2)
        rotated = square.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
        scale = rng.uniform(0.92, 1.08)
        shift = (1 - scale) * size / 2
        matrix = (scale, 0, shift + dx, 0, scale, shift + dy)
        return rotated.transform(
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
