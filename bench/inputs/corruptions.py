"""The fifteen corruptions of ImageNet-C, applied when images are decoded.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019 (arXiv 1903.12261); constants as in their `make_imagenet_c.py`. Their
photographs of frost may not be redistributed, so a generated texture of ice replaces them;
docs/studies.md has smaller differences.

The constants are for images of 224 pixels, so the shorter side of an image is first resized to 224.
Of an image more than 16 times as long as wide only the middle is corrupted. Randomness is derived
from the corruption and the sample id only: not from severity, order, limit or seed.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from bench.contracts.dataset import Sample, StoredImage
from bench.contracts.strategy import Floats
from bench.errors import UserError, did_you_mean
from bench.machine.libraries import ndimage

CORRUPTED_SIDE = 224  # pixels of the shorter side
CORRUPTED_ELONGATION = 16  # longer side in shorter sides; the memory of `fog` is quadratic in it
SEVERITIES = 5
COLLECTION = "@corruptions"
NOT_THEIRS = "frost"  # replaced by another corruption, so that no mean with it is ImageNet-C's
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601)
ICE = (0.86, 0.93, 1.0)  # colour of ice

Pixels = Floats  # [H, W, 3] in [0, 1]
Rng = np.random.Generator


def _gaussian_noise(x: Pixels, rng: Rng, scale: float) -> Pixels:
    return x + scale * rng.standard_normal(x.shape)


def _shot_noise(x: Pixels, rng: Rng, photons: float) -> Pixels:
    return np.asarray(rng.poisson(x * photons) / photons)


def _impulse_noise(x: Pixels, rng: Rng, amount: float) -> Pixels:
    hit, salt = rng.random(x.shape) < amount, rng.random(x.shape) < 0.5
    return np.where(hit, salt, x)


def _defocus_blur(x: Pixels, rng: Rng, constants: tuple[int, float]) -> Pixels:
    from scipy.signal import oaconvolve

    radius, sigma = constants
    half = max(8, radius)
    place = np.arange(-half, half + 1)
    disk = (place**2 + place[:, None] ** 2 <= radius**2).astype(float)
    edge = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    smooth = np.exp(-(edge**2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = ndimage.convolve1d(disk, smooth / smooth.sum(), axis, mode="mirror")
    padded = np.pad(x, ((half, half), (half, half), (0, 0)), mode="reflect")
    blurred = oaconvolve(padded, disk[..., None] / disk.sum(), mode="valid", axes=(0, 1))
    return np.asarray(blurred)


def _glass_blur(x: Pixels, rng: Rng, constants: tuple[float, int, int]) -> Pixels:
    """Blur, replace each pixel by a neighbour within some distance, and blur again.

    The authors' code is meant to swap the two pixels, but copies one because of numpy views. Their
    images were made with this code.
    """
    sigma, reach, times = constants
    height, width = x.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    source_of = list(range(height * width))
    for _ in range(times):
        down, right = rng.integers(-reach, reach, (2, len(rows), len(columns)))
        here = rows[:, None] * width + columns
        for to, source in zip(here.flat, (here + down * width + right).flat, strict=True):
            source_of[to] = source_of[source]
    shuffled = _blur(x, sigma).reshape(-1, 3)[source_of].reshape(x.shape)
    return _blur(shuffled, sigma)


def _blur(x: Pixels, sigma: float) -> Pixels:
    return np.asarray(ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest"))


def _motion_blur(x: Pixels, rng: Rng, constants: tuple[int, float]) -> Pixels:
    return _blur_along_line(x, *constants, angle=rng.uniform(-45, 45))


def _blur_along_line(x: Pixels, radius: int, sigma: float, angle: float) -> Pixels:
    """Blur along a line as ImageMagick does: half a Gaussian over 2 · radius + 1 pixels."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    turn = np.deg2rad(angle)
    down, right = (np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(turn), np.cos(turn)))
    reach, (height, width) = len(steps), x.shape[:2]
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = np.zeros_like(x)
    for weight, dy, dx in zip(weights / weights.sum(), reach + down, reach + right, strict=True):
        total += weight * padded[dy : dy + height, dx : dx + width]
    return total


def _zoom_blur(x: Pixels, rng: Rng, constants: tuple[float, float]) -> Pixels:
    end, step = constants
    factors, total = np.arange(1, end, step), x.copy()
    for factor in factors:  # one at a time: up to 31 of them
        total += _zoom(x, factor)
    return total / (len(factors) + 1)


def _zoom(x: Pixels, factor: float) -> Pixels:
    scale = np.array([1 / factor, 1 / factor, 1.0])
    middle = (np.array(x.shape) - 1) / 2
    return np.asarray(
        ndimage.affine_transform(x, scale, middle - scale * middle, order=1, mode="nearest")
    )


def _snow(x: Pixels, rng: Rng, constants: tuple[float, ...]) -> Pixels:
    mean, scale, zoom, least, radius, sigma, image_weight = constants
    flakes = _zoom(rng.normal(mean, scale, (*x.shape[:2], 1)), zoom)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = _blur_along_line(flakes, int(radius), sigma, rng.uniform(-135, -45))
    white = np.maximum(x, (x @ LUMA)[..., None] * 1.5 + 0.5)
    snowy = image_weight * x + (1 - image_weight) * white
    return np.asarray(snowy + flakes + np.rot90(flakes, 2))


def _frost(x: Pixels, rng: Rng, constants: tuple[float, float]) -> Pixels:
    """Overlay ice, whose crystals lie where two fractals cross their middle values."""
    image_weight, ice_weight = constants
    ridges = [1 - np.abs(2 * _plasma(x, rng, 1.7) - 1) for _ in range(2)]
    return np.asarray(image_weight * x + ice_weight * np.maximum(*ridges)[..., None] ** 2 * ICE)


def _fog(x: Pixels, rng: Rng, constants: tuple[float, float]) -> Pixels:
    amount, decay = constants
    brightest = x.max()
    misty = x + amount * _plasma(x, rng, decay)[..., None]
    return np.asarray(misty * brightest / (brightest + amount))


def _plasma(x: Pixels, rng: Rng, decay: float) -> Pixels:
    """Return a fractal of the image's size, [H, W] in [0, 1], by the diamond-square algorithm.

    A point is the mean of four points that exist plus noise, which is smaller at each finer step.
    """
    size = 1 << (max(x.shape[:2]) - 1).bit_length()
    heights, step, wobble = np.zeros((size, size)), size, 100.0
    while step > 1:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        total = pairs + np.roll(pairs, -1, axis=1)
        heights[half::step, half::step] = total / 4 + _draw_wobble(rng, wobble, total)
        centres = heights[half::step, half::step]
        total = centres + np.roll(centres, 1, axis=0) + corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = total / 4 + _draw_wobble(rng, wobble, total)
        total = centres + np.roll(centres, 1, axis=1) + corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = total / 4 + _draw_wobble(rng, wobble, total)
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return np.asarray(heights[: x.shape[0], : x.shape[1]] / heights.max())


def _draw_wobble(rng: Rng, wobble: float, like: Pixels) -> Pixels:
    return wobble * rng.uniform(-wobble, wobble, like.shape)  # squared, as in the authors' code


def _brightness(x: Pixels, rng: Rng, increase: float) -> Pixels:
    """Change the value in HSV, which scales all three colours alike."""
    value = x.max(axis=2, keepdims=True)
    brighter = np.clip(value + increase, 0, 1)
    return np.asarray(np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter))


def _contrast(x: Pixels, rng: Rng, scale: float) -> Pixels:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return np.asarray((x - mean) * scale + mean)


def _elastic(x: Pixels, rng: Rng, constants: tuple[float, float, float]) -> Pixels:
    """Apply a random affine map that moves three points, then a small random shift of each pixel.

    The constants are fractions of 244, the authors' slip for 224.
    """
    strength, smoothness, affine = (244 * share for share in constants)
    height, width = x.shape[:2]
    centre, side = np.array([height // 2, width // 2]), min(height, width) // 3
    points = centre + side * np.array([[1, 1], [-1, 1], [-1, -1]])
    moved = points + rng.uniform(-affine, affine, points.shape)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)  # from a moved point to its source
    shifts = [
        strength
        * ndimage.gaussian_filter(rng.uniform(-1, 1, (height, width)), smoothness, truncate=3)
        for _ in range(2)
    ]
    rows, columns = np.indices((height, width)) + shifts
    source = np.stack([rows, columns, np.ones_like(rows)], axis=-1) @ back
    places = (source[..., 0], source[..., 1])
    colours = [ndimage.map_coordinates(x[..., c], places, order=1, mode="mirror") for c in range(3)]
    return np.stack(colours, axis=-1)


def _pixelate(x: Pixels, rng: Rng, scale: float) -> Pixels:
    image = _to_image(x)
    size = int(image.width * scale), int(image.height * scale)
    small = image.resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BOX)) / 255


def _jpeg(x: Pixels, rng: Rng, quality: int) -> Pixels:
    file = BytesIO()
    _to_image(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)) / 255


def _to_image(x: Pixels) -> Image.Image:
    return Image.fromarray(np.round(x * 255).astype(np.uint8))


CORRUPTIONS: dict[str, tuple[Callable[[Pixels, Rng, Any], Pixels], tuple[Any, ...]]] = {
    "gaussian-noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": (_shot_noise, (60, 25, 12, 5, 3)),
    "impulse-noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus-blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass-blur": (_glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion-blur": (_motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "zoom-blur": (
        _zoom_blur,
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": (
        _snow,
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": (_frost, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
    "fog": (_fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic-transform": (
        _elastic,
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
    ),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg-compression": (_jpeg, (25, 18, 15, 10, 7)),
}


def parse_corruption(text: str) -> str | None:
    """Return a valid `NAME:SEVERITY`, or None for `none` (UserError, also for a collection)."""
    if text == "none":
        return None
    name, _, severity = text.partition(":")
    if name == COLLECTION:
        raise UserError(
            f"--corrupt {text} stands for {len(expand_corruptions(text))} corruptions, but a run"
            f' has one. A study runs them all: corrupt = ["none", "{text}"].'
        )
    if name not in CORRUPTIONS:
        raise UserError(
            f"--corrupt {text}: there is no corruption {name!r}.{did_you_mean(name, CORRUPTIONS)}"
            f" They are: {', '.join(CORRUPTIONS)}."
        )
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise UserError(f"--corrupt {text}: write {name}:SEVERITY, from 1 to {SEVERITIES}.")
    return text


def expand_corruptions(text: str) -> list[str]:
    """Return the corruptions of `@corruptions[:SEVERITY]`, not validated, or another text alone."""
    collection, _, severity = text.partition(":")
    if collection != COLLECTION:
        return [text]
    severities = [severity] if severity else map(str, range(1, SEVERITIES + 1))
    return [f"{name}:{number}" for number in severities for name in CORRUPTIONS]


def corrupt_samples(samples: Iterable[Sample], corruption: str | None) -> Iterator[Sample]:
    """Yield samples whose images will be corrupted when decoded; with None, unchanged samples."""
    for sample in samples:
        if corruption is not None:
            images: list[StoredImage | None] = []
            for n, image in enumerate(sample.images):
                name = sample.sample_id if sample.item is None else f"{sample.sample_id} {n}"
                images.append({**image, "corruption": (corruption, name)} if image else image)
            sample = sample.with_images(images)
        yield sample


def corrupt(image: Image.Image, corruption: str, name: str) -> Image.Image:
    """Return the image in RGB, resized to a shorter side of 224 pixels and corrupted.

    `corruption` is a valid `NAME:SEVERITY`, and `name` identifies the image, which should be at
    most `CORRUPTED_ELONGATION` times as long as wide.
    """
    scale = CORRUPTED_SIDE / min(image.size)
    width, height = (max(CORRUPTED_SIDE, round(side * scale)) for side in image.size)
    image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    kind, _, severity = corruption.partition(":")
    digest = hashlib.sha256(f"{kind}\0{name}".encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    function, constants = CORRUPTIONS[kind]
    pixels = function(np.asarray(image) / 255, rng, constants[int(severity) - 1])
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
