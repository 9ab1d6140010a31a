"""Open images in groups, make views of them, and crop them to the resolution of a model."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Floats32, Ints
from bench.contracts.typed import PositiveInt
from bench.contracts.views import Views
from bench.discovery.guard import checked_answer, guard
from bench.discovery.targets import with_defaults
from bench.errors import PluginError
from bench.inputs.pixels import LARGE_PIXELS, PixelsError, decode
from bench.inputs.view_assignment import assign_evenly
from bench.machine.libraries import Tensor, torch

# A sample, and the views of each of its images, or why one cannot be read.
Opened = tuple[Sample, list[list[Image.Image]] | str]

MAX_RESIZED_PIXELS = 2**27  # of a resized image before it is cropped; 400 MB
# Eight photographs of 12 megapixels, or two images of LARGE_PIXELS.
MAX_GROUP_PIXELS = LARGE_PIXELS * 3 // 2
MAX_VIEWS = 64  # per image; their latents are in memory while it is scored
# `half` is what Stable Diffusion's VAE was trained on. `cifar10` repeats the published UC Merced
# notebook, which normalised with CIFAR-10's statistics and so left the VAE's range.
NORMALIZATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
}


def resize_and_crop(image: Image.Image, resolution: int) -> Image.Image:
    """Return RGB [resolution, resolution]: shorter side by PIL's bicubic on uint8, centre crop.

    Rounds as torchvision's Resize and CenterCrop do, which the reference implementation uses. If
    the resized image would exceed MAX_RESIZED_PIXELS, only its middle is resized.
    """
    image = image.convert("RGB")
    short = min(image.size)
    width, height = (resolution * side // short for side in image.size)
    if width * height > MAX_RESIZED_PIXELS:
        left, top = ((side - short) / 2 for side in image.size)
        box = (left, top, left + short, top + short)
        return image.resize((resolution, resolution), Image.Resampling.BICUBIC, box)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - resolution) / 2), round((height - resolution) / 2)
    return image.crop((left, top, left + resolution, top + resolution))


def squash(image: Image.Image, resolution: int) -> Image.Image:
    """Return RGB [resolution, resolution]: the whole image by bicubic, aspect ratio lost."""
    return image.convert("RGB").resize((resolution, resolution), Image.Resampling.BICUBIC)


def preprocess(images: Sequence[Image.Image], resolution: int, normalize: str = "half") -> Tensor:
    """Return pixels, float32 [n, 3, resolution, resolution], in [-1, 1] for `half`."""
    pixels = np.stack([np.asarray(resize_and_crop(image, resolution)) for image in images])
    mean, std = (np.asarray(v, np.float32) for v in NORMALIZATIONS[normalize])
    scaled: Floats32 = (pixels.astype(np.float32) / 255.0 - mean) / std
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()


def open_images(
    samples: Iterable[Sample],
    size: int,
    views_of: Callable[[Image.Image, str], list[Image.Image]] = lambda image, name: [image],
) -> Iterator[list[Opened]]:
    """Yield groups of samples with the views of each image, made by `views_of(image, name)`.

    A group has about `size` images, or fewer if they are large. All images of a sample are in one.
    """
    group: list[Opened] = []
    count = pixels = 0
    for sample in samples:
        images = _open(sample)
        count += len(sample.images)
        if isinstance(images, str):
            group.append((sample, images))
        else:
            pixels += sum(image.width * image.height for image in images)
            views = [views_of(image, name_of(sample, n)) for n, image in enumerate(images)]
            group.append((sample, views))
        if count >= size or pixels >= MAX_GROUP_PIXELS:
            yield group
            group, count, pixels = [], 0, 0
    if group:
        yield group


def _open(sample: Sample) -> list[Image.Image] | str:
    opened = []
    for number, image in enumerate(sample.images, start=1):
        try:
            opened.append(decode(image))
        except PixelsError as error:
            which = "the image" if len(sample.images) == 1 else f"image {number}"
            return f"{which} cannot be read: {error}"
    return opened


class CheckedViews:
    """Wrapper that validates a plugin's views (variants of an image); messages call it `who`."""

    def __init__(self, views: object, who: str) -> None:
        self.who = who
        self.views: Views = with_defaults(views, Views)
        self.count = checked_answer(who, "count", PositiveInt, lambda: self.views.count)
        self.of_latents = checked_answer(
            who, "samples_latents", bool, lambda: self.views.samples_latents
        )
        if self.count > MAX_VIEWS:
            raise PluginError(who, f"its count is {self.count}, above {MAX_VIEWS}")

    def of(self, image: Image.Image, seed: int, name: str) -> list[Image.Image]:
        """Return the views of one image, made from the run's seed and the image's name."""
        if self.of_latents:
            return [image]
        with guard(self.who, "of()"):
            pictures = list(self.views.of(image, view_seed(seed, name)))
        whole = [p for p in pictures if isinstance(p, Image.Image) and min(p.size) > 0]
        if not len(whole) == len(pictures) == self.count:
            raise PluginError(self.who, f"of() did not return {self.count} images")
        return pictures


def view_seed(seed: int, name: str) -> int:
    """Return the seed of an image's views, below 2**63, from the run's seed and its name."""
    content = f"{seed}\0{name}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 1


def view_of_draw(n_draws: int, views: int, per_level: int = 1) -> Ints:
    """Return int64 [N], the view of each draw; each run of `per_level` draws has one view."""
    view_of_level = assign_evenly(-(-n_draws // per_level), views)
    return np.asarray(np.repeat(view_of_level, per_level)[:n_draws])


def name_of(sample: Sample, number: int) -> str:
    """Return the name of one image of a sample, from which its random numbers are made."""
    number = sample.image_numbers[number]  # that in the item, whichever images are candidates
    return f"{sample.sample_id}\0{number}" if number else sample.sample_id
