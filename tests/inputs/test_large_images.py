"""Large images are decoded in bounded memory: in strips, at a reduced size, few at a time."""

import sys

import numpy as np
import pytest
from helpers.command import python
from helpers.given import stored
from helpers.matrix import matrix
from PIL import Image

from bench.contracts.dataset import Sample
from bench.engine.images import open_images, resize_and_crop
from bench.inputs import pixels
from bench.inputs.corruptions import CORRUPTED_ELONGATION, CORRUPTED_SIDE, CORRUPTIONS
from bench.inputs.pixels import MAX_ELONGATION, decode, is_ordinary


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "LARGE_PIXELS", 100)
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 64)


REDUCED = ("L", "RGB", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F")


@pytest.mark.parametrize("mode", REDUCED)
@pytest.mark.usefixtures("small_limits")
def test_large_images_are_reduced_strip_by_strip(mode: str) -> None:
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)[:, None].repeat(30, 1)  # dark at the top
    if mode == "I;16":
        image = stored(Image.fromarray(ramp.astype(np.uint16) * 257), "TIFF")
    elif mode == "F":
        image = stored(Image.fromarray(ramp.astype(np.float32) / 255), "TIFF")
    else:
        image = stored(Image.fromarray(ramp).convert(mode), "TIFF")
    seen = decode(image)
    assert seen.width * seen.height <= 100 and not is_ordinary(image)
    values = np.asarray(seen.convert("L")).astype(int)
    expected = np.asarray(Image.fromarray(ramp).reduce(4).convert("L")).astype(int)
    assert values.shape == expected.shape
    assert abs(values - expected).max() <= (140 if mode == "1" else 12)


@pytest.mark.usefixtures("small_limits")
def test_a_large_jpeg_is_decoded_at_a_reduced_size_and_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image = stored(Image.new("RGB", (64, 32), (10, 20, 30)), "JPEG", exif=exif)
    seen = decode(image)
    assert seen.size == (4, 8) and np.abs(np.asarray(seen)[0, 0] - [10, 20, 30]).max() <= 3


def test_long_images_are_cut_before_they_are_resized() -> None:
    strip = Image.new("L", (3_000_000, 1), 7)
    assert np.asarray(resize_and_crop(strip, 64)).tolist() == [[[7, 7, 7]] * 64] * 64
    ramp = Image.fromarray(np.arange(200, dtype=np.uint8)[None].repeat(2, 0))
    cut = np.asarray(resize_and_crop(ramp, 4))
    assert cut.min() >= 98 and cut.max() <= 102


def test_few_large_images_are_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.engine import images

    image = stored(Image.new("RGB", (8, 8)))
    samples = [Sample(str(i), 0, image) for i in range(8)]
    assert [len(group) for group in open_images(samples, 5)] == [5, 3]
    monkeypatch.setattr(images, "MAX_GROUP_PIXELS", 3 * 64)
    assert [len(group) for group in open_images(samples, 8)] == [3, 3, 2]


@pytest.mark.parametrize(("long", "cut"), [(64 * 3, 192), (64 * 3 + 1, 192), (5001, 192)])
@pytest.mark.parametrize("across", [True, False])
def test_an_elongated_image_is_cut_to_its_middle(long: int, cut: int, across: bool) -> None:
    ramp = np.linspace(0, 255, long).astype(np.uint8)[None].repeat(3, 0)
    image = stored(Image.fromarray(ramp if across else ramp.T.copy()))
    seen = np.asarray(decode(image)) if across else np.asarray(decode(image)).T
    first = (long - cut) // 2
    assert np.array_equal(seen, ramp[:, first : first + cut])
    assert is_ordinary(image) == (long == cut == 3 * MAX_ELONGATION)
    assert max(decode(image, whole=True).size) == long


@pytest.mark.parametrize("kind", matrix(CORRUPTIONS, ["snow"]))
def test_corrupted_images_are_at_most_sixteen_times_as_long_as_wide(kind: str) -> None:
    image = {
        **stored(Image.new("RGB", (17 * 4, 4), (9, 99, 199))),
        "corruption": (f"{kind}:1", "x"),
    }
    assert decode(image).size == (CORRUPTED_ELONGATION * CORRUPTED_SIDE, CORRUPTED_SIDE)


IN_PROPORTION = """
import resource
from io import BytesIO
import scipy.ndimage, scipy.signal
from PIL import Image
from bench.engine.images import resize_and_crop, squash
from bench.inputs.pixels import decode
import transformers
from bench_plugins.backbones.clip import prepare_images
from bench_plugins.backbones.learned import pixels

pil = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
clip = pil()
taken = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(taken.split()[1]) * 1024 + 500_000_000  # fog takes most of it
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for size in ((1, 3000), (400_000, 1)):
    file = BytesIO()
    Image.new("RGB", size, (200, 100, 30)).save(file, "PNG")
    stored = {"bytes": file.getvalue(), "path": None}
    for kind in ("fog:5", "zoom-blur:1", "gaussian-noise:1"):
        decode({**stored, "corruption": (kind, "x")})
    image = decode(stored)
    resize_and_crop(image, 512), squash(image, 512), prepare_images(clip, [image]), pixels([image])
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="limits and measures are Linux's")
def test_the_memory_of_a_picture_is_in_proportion_to_what_is_made_of_it() -> None:
    """By every way in: under `--corrupt`, 1 × 3,000 pixels asked for 3.4 GiB."""
    done = python(IN_PROPORTION)
    assert done.code == 0, done.err
