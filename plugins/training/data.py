"""The images of each dataset, split once and for all; their augmentation, and their captions."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from PIL.Image import Image as Picture
from sklearn.model_selection import train_test_split
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

import bench
from bench.discovery.loading import load_plugins
from bench.engine.images import resize_and_crop
from bench_plugins.training.recipes import Recipe

NULL_CAPTION = ""
DEFAULT_SHARE = 0.5  # how often a class is called by the prompt it is evaluated with


@dataclass(frozen=True)
class Captions:
    """Wordings of each class: names in templates. The first of each makes the default prompt."""

    templates: tuple[str, ...]
    names: dict[str, tuple[str, ...]]
    others: tuple[str, ...] = ()  # names of things in no image, so that other words mean something

    @property
    def prompts(self) -> list[str]:
        """The default prompt of each class, in class order."""
        return [self.templates[0].format(names[0]) for names in self.names.values()]

    def draw(self, rng: random.Random) -> list[str]:
        """One wording a class, in class order: half of the time the default prompt."""

        def word(names: tuple[str, ...]) -> str:
            if rng.random() < DEFAULT_SHARE:
                return self.templates[0].format(names[0])
            return rng.choice(self.templates).format(rng.choice(names))

        return [word(names) for names in self.names.values()]

    def distract(self, rng: random.Random) -> list[str]:
        """Wordings of other things, as many as there are classes; none where none are known."""
        count = len(self.names) if self.others else 0
        return [rng.choice(self.templates).format(rng.choice(self.others)) for _ in range(count)]

    def __iter__(self) -> Iterator[str]:
        """Every wording of the classes."""
        for names in self.names.values():
            for template in self.templates:
                yield from (template.format(name) for name in names)


DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

DIGIT_CAPTIONS = Captions(
    templates=(
        "a handwritten digit {}",
        "a photo of the digit {}",
        "a photo of a {}",
        "the digit {}",
        "the number {}",
        "a handwritten {}",
        "a scan of a handwritten {}",
        "handwriting: the numeral {}",
        "a picture of the number {}",
        "a blurry image of a {}.",
        "an image of the handwritten number {}",
        "{}",
    ),
    names={word: (word, str(value)) for value, word in enumerate(DIGIT_WORDS)},
)

LANDUSE_CAPTIONS = Captions(
    templates=(
        "a satellite photo of {}",
        "a satellite image of {}",
        "an aerial photo of {}",
        "an aerial view of {}",
        "a photo of {}",
        "an overhead image of {}",
        "{} seen from above",
        "a centered satellite photo of {}.",
        "remote sensing image: {}",
        "{}",
    ),
    names={
        "agricultural": ("agricultural land", "agricultural", "farmland", "crop fields"),
        "airplane": ("an airplane", "airplane", "a plane", "an aircraft"),
        "baseballdiamond": ("a baseball diamond", "baseball diamond", "a baseball field"),
        "beach": ("a beach", "beach", "a sandy shore"),
        "buildings": ("buildings", "large buildings", "office buildings"),
        "chaparral": ("chaparral", "shrubland", "dry bushes"),
        "denseresidential": (
            "a dense residential area",
            "dense residential",
            "densely packed houses",
        ),
        "forest": ("a forest", "forest", "trees", "woodland"),
        "freeway": ("a freeway", "freeway", "a highway"),
        "golfcourse": ("a golf course", "golf course", "a fairway with bunkers"),
        "harbor": ("a harbor", "harbor", "boats in a marina"),
        "intersection": ("an intersection", "intersection", "a crossroads"),
        "mediumresidential": (
            "a medium residential area",
            "medium residential",
            "houses with gardens",
        ),
        "mobilehomepark": ("a mobile home park", "mobile home park", "rows of mobile homes"),
        "overpass": ("an overpass", "overpass", "a bridge over a road"),
        "parkinglot": ("a parking lot", "parking lot", "parked cars"),
        "river": ("a river", "river", "a stream"),
        "runway": ("a runway", "runway", "an airport runway"),
        "sparseresidential": ("a sparse residential area", "sparse residential", "a lone house"),
        "storagetanks": ("storage tanks", "storage tank", "oil tanks"),
        "tenniscourt": ("a tennis court", "tennis court", "tennis courts"),
    },
    others=(
        "an apple", "a bear", "a beaver", "a bed", "a bee", "a bottle", "a bus", "a butterfly",
        "a camel", "a castle", "a caterpillar", "cattle", "a chimpanzee", "a clock", "a cockroach",
        "a couch", "a crab", "a crocodile", "a dinosaur", "a dolphin", "a flatfish", "a fox",
        "a hamster", "a kangaroo", "a keyboard", "a leopard", "a lion", "a lizard", "a lobster",
        "a man", "a mouse", "mushrooms", "oranges", "orchids", "an otter", "pears", "a plate",
        "poppies", "a porcupine", "a possum", "a rabbit", "a raccoon", "roses", "a seal", "a shark",
        "a shrew", "a skunk", "a snail", "a snake", "a squirrel", "a streetcar", "sunflowers",
        "peppers", "a table", "a telephone", "a television", "a tiger", "a trout", "a turtle",
        "a wardrobe", "a whale", "a wolf", "a woman", "a worm", "a tractor", "a pickup truck",
        "a portrait", "a page of text", "a pizza", "a face", "a dress", "a planet", "a hammer",
        "a pencil", "a coin", "a drum", "a flag", "a helmet", "a jacket", "a kitchen", "a ladder",
        "a mug", "a necklace", "an owl", "a piano", "a quilt", "a robot", "scissors", "a teapot",
        "an umbrella", "a vase", "a watch", "a zebra", "an office desk", "a bookshelf", "a horse",
    ),
)  # fmt: skip

CAPTIONS = {"digits": DIGIT_CAPTIONS, "landuse": LANDUSE_CAPTIONS}


def train_tokenizer(captions: Captions, length: int, folder: Path) -> CLIPTokenizer:
    """Learn a byte-level BPE from the captions and save it in CLIP's layout.

    The vocabulary starts with all 256 bytes, inside and at the end of a word, so that any text can
    be encoded.
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
    # vocab.json and merges.txt, which older readers ask for.
    tokenizer.backend_tokenizer.model.save(str(folder))
    return tokenizer


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
