"""A tiny compositional dataset, coloured digits side by side, and a denoiser that can tell them.

    a red 3 left of a blue 5

The denoiser paints what a text says and pulls x_t towards it, so its errors are computed by hand
in a few lines of numpy.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from helpers.command import Finished, bench
from helpers.given import stored as as_stored
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.draw_order import timestep_grid
from bench.contracts.levels import diffusion_levels
from bench.engine.images import preprocess
from bench.inputs.draws import generate_noise
from bench.inputs.rows import make_list_feature

SIDE = 16
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 230)}
SHAPES = {"3": "111 001 111 001 111", "5": "111 100 111 001 111", "7": "111 001 010 010 010"}
ALPHAS_CUMPROD = np.linspace(0.99, 0.05, 40)
PULL = 0.7  # of the answer is what the text says, the rest is x_t


def caption(left: tuple[str, str], right: tuple[str, str]) -> str:
    return f"a {left[0]} {left[1]} left of a {right[0]} {right[1]}"


def paint(text: str) -> NDArray[np.uint8]:
    """Return the picture of a text, uint8 [16, 16, 3]."""
    picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
    words = text.split()
    for place, (colour, digit) in zip((1, 9), (words[1:3], words[6:8]), strict=True):
        bits = np.array([[c == "1" for c in row] for row in SHAPES[digit].split()])
        mask = np.kron(bits, np.ones((2, 2), bool))
        picture[3:13, place : place + 6][mask] = COLOURS[colour]
    return picture


def stored(text: str, seed: int = 0) -> Any:
    """Return the picture of a text with some noise, as `datasets` stores it."""
    rng = np.random.default_rng([seed, *text.encode()])
    pixels = paint(text).astype(int) + rng.integers(-90, 90, (SIDE, SIDE, 3))
    return as_stored(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def things(count: int, seed: int = 0) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return pairs of coloured digits that are not the same."""
    rng = np.random.default_rng(seed)
    every = [(colour, digit) for colour in COLOURS for digit in SHAPES]
    chosen = [rng.choice(len(every), 2, replace=False) for _ in range(count)]
    return [(every[a], every[b]) for a, b in chosen]


@cache
def one_image(count: int = 12) -> datasets.Dataset:
    """One image each, two to four captions; the groups are what a wrong caption swaps."""
    rows: dict[str, list[Any]] = {n: [] for n in ("sample_id", "image", "texts", "label", "group")}
    for number, (left, right) in enumerate(things(count)):
        texts = [caption(left, right), caption(right, left)]
        texts += [caption((right[0], left[1]), (left[0], right[1]))] * (number % 3 > 0)
        texts += [caption(left, left)] * (number % 3 > 1)
        texts = list(dict.fromkeys(texts))
        turn = number % len(texts)
        rows["sample_id"].append(f"item-{number}")
        rows["image"].append(stored(texts[0], number))
        rows["texts"].append(texts[turn:] + texts[:turn])
        rows["label"].append(-turn % len(texts))
        rows["group"].append(("place", "colour", "both")[number % 3])
    return with_images(rows)


@cache
def two_images(count: int = 8) -> datasets.Dataset:
    """Two images and two captions each."""
    rows: dict[str, list[Any]] = {n: [] for n in ("sample_id", "images", "texts", "pairing")}
    for number, (left, right) in enumerate(things(count, seed=1)):
        texts = [caption(left, right), caption(right, left)]
        turned = number % 2 == 1
        rows["sample_id"].append(f"pair-{number}")
        rows["images"].append([stored(text, number) for text in texts[:: -1 if turned else 1]])
        rows["texts"].append(texts)
        rows["pairing"].append([1, 0] if turned else [0, 1])
    return with_images(rows)


def with_images(rows: dict[str, list[Any]]) -> datasets.Dataset:
    """Return a dataset of columns, its images stored and not decoded."""
    kind = datasets.Image(decode=False)
    found = datasets.Dataset.from_dict(rows)
    if "images" in rows:
        return found.cast_column("images", make_list_feature(kind))
    return found.cast_column("image", kind)


class Painter:
    """The denoiser: it predicts x_0 as a mixture of what the text says and x_t."""

    latent_shape = (3, SIDE, SIDE)
    resolution = SIDE
    levels = diffusion_levels(ALPHAS_CUMPROD, "sample")
    passes: ClassVar[list[int]] = []

    def __init__(self, weights: Any, *, device: str, dtype: str) -> None:
        self.device = torch.device("cpu")
        Painter.encoded, Painter.images = [], 0
        Painter.passes = []

    encoded: ClassVar[list[str]] = []
    images: ClassVar[int] = 0

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        Painter.images += len(images)
        return preprocess(images, SIDE)

    def encode_prompts(self, texts: Sequence[str]) -> torch.Tensor:
        Painter.encoded += texts
        return preprocess([Image.fromarray(paint(text)) for text in texts], SIDE)

    def encode_null(self) -> torch.Tensor:
        return torch.zeros(1, 3, SIDE, SIDE)

    def denoise(
        self, x_t: torch.Tensor, t: torch.Tensor, conditioning: torch.Tensor
    ) -> torch.Tensor:
        Painter.passes.append(len(x_t))
        return PULL * conditioning + (1 - PULL) * x_t


def errors_by_hand(
    image: Image.Image, texts: Sequence[str | None], draws: int, seed: int = 0
) -> NDArray[np.float64]:
    """Return float64 [texts, draws], the errors of `Painter` computed again; None: no text."""

    def pixels(picture: Image.Image) -> NDArray[np.float64]:
        return np.asarray(picture.convert("RGB"), float).transpose(2, 0, 1) / 127.5 - 1

    x_0 = pixels(image)
    said = [np.zeros_like(x_0) if t is None else pixels(Image.fromarray(paint(t))) for t in texts]
    errors = np.empty((len(texts), draws))
    for k, level in enumerate(timestep_grid(draws, len(ALPHAS_CUMPROD))):
        alpha, sigma = ALPHAS_CUMPROD[level] ** 0.5, (1 - ALPHAS_CUMPROD[level]) ** 0.5
        x_t = alpha * x_0 + sigma * generate_noise(seed, k, x_0.shape)
        for p, conditioning in enumerate(said):
            answer = PULL * conditioning + (1 - PULL) * x_t
            errors[p, k] = ((answer - x_0) ** 2).mean()
    return errors


DRAWS = 24


def run(results: Path, strategy: str, *options: object, draws: int = DRAWS) -> Finished:
    """Score the captions; the command must end in one of the ways that runs end."""
    arguments = ["run", "captions", "--backbone", "painter", "--strategy", strategy]
    numbers = ("--set", f"draws={draws}") if strategy != "adaptive" else ()
    arguments += [*numbers, "--results", str(results), "--json", "--batch-size", "16"]
    done = bench(*arguments, *options)
    assert done.code in (0, 2, 3), done.err
    return done
