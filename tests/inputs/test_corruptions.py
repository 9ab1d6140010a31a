"""Corruptions follow their published definitions, and blind controls leave nothing of an image."""

from typing import Any

import numpy as np
import pytest
from helpers.captions import one_image, two_images
from helpers.given import stored
from helpers.refusals import refused
from PIL import Image

from bench.contracts.dataset import Item, Sample
from bench.contracts.specs import DatasetSpec
from bench.inputs.corruptions import (
    CORRUPTIONS,
    corrupt,
    corrupt_samples,
    expand_corruptions,
    parse_corruption,
)
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import decode
from bench.inputs.replaced import blind_samples, pair_samples
from bench.inputs.split import Split


def picture(width: int = 224, height: int = 224) -> Image.Image:
    """Return smooth colours with an edge."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([60 + x / 4, 80 + y / 4, np.where(x > y, 180, 60)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, float)


def change(kind: str, severity: int) -> float:
    clean = picture()
    return float(np.abs(array(corrupt(clean, f"{kind}:{severity}", "x")) - array(clean)).mean())


CHANGES = {  # mean absolute change of `picture()`, of 255, at the severities 1 and 5
    "gaussian-noise": (16.262, 65.059),
    "shot-noise": (16.506, 67.527),
    "impulse-noise": (3.864, 34.116),
    "defocus-blur": (0.321, 1.088),
    "glass-blur": (0.391, 1.193),
    "motion-blur": (0.523, 2.734),
    "zoom-blur": (0.488, 1.121),
    "snow": (44.342, 106.681),
    "frost": (68.838, 88.102),
    "fog": (31.522, 33.357),
    "brightness": (18.249, 72.361),
    "contrast": (17.595, 27.810),
    "elastic-transform": (2.302, 0.769),
    "pixelate": (0.173, 0.335),
    "jpeg-compression": (2.232, 6.156),
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_corruption_changes_an_image_as_before_and_more_so_when_severe(kind: str) -> None:
    """`elastic-transform` alone changes its kind of shift with the severity, as published."""
    mild, severe = change(kind, 1), change(kind, 5)
    assert mild > 0.1 and (severe > mild or kind == "elastic-transform")
    assert (mild, severe) == pytest.approx(CHANGES[kind], rel=0.02, abs=0.01)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_the_same_image_is_corrupted_alike_and_another_one_otherwise(kind: str) -> None:
    clean = picture()
    first, again, other = (array(corrupt(clean, f"{kind}:3", name)) for name in ("a", "a", "b"))
    assert np.array_equal(first, again)
    fixed = {"defocus-blur", "zoom-blur", "brightness", "contrast", "pixelate", "jpeg-compression"}
    assert np.array_equal(first, other) == (kind in fixed)


def test_light_and_contrast_are_those_of_the_definitions() -> None:
    clean = array(picture()) / 255
    brighter = array(corrupt(picture(), "brightness:2", "x")) / 255
    np.testing.assert_allclose(
        brighter.max(axis=2), np.minimum(clean.max(axis=2) + 0.2, 1), atol=0.003
    )
    flat, mean = array(corrupt(picture(), "contrast:4", "x")) / 255, clean.mean(axis=(0, 1))
    np.testing.assert_allclose(flat, (clean - mean) * 0.1 + mean, atol=0.003)


def test_a_blur_keeps_the_sum_and_a_defocused_point_is_a_disk() -> None:
    point = np.zeros((224, 224, 3), np.uint8)
    point[112, 112] = 255
    from bench.inputs.corruptions import _defocus_blur, _motion_blur

    rng = np.random.default_rng(0)
    disk = _defocus_blur(point / 255, rng, (6, 0.5))[..., 0]
    assert disk.sum() == pytest.approx(1) and np.count_nonzero(disk > 1e-3) == pytest.approx(
        113, abs=30
    )
    line = _motion_blur(point / 255, rng, (10, 3))[..., 0]
    assert line.sum() == pytest.approx(1) and np.count_nonzero(line > 1e-9) <= 21


@pytest.mark.long
def test_small_large_grey_and_oblong_images_are_corrupted_at_224_pixels() -> None:
    for image in (picture(16, 16), picture(600, 300), picture(30, 90).convert("L")):
        for kind in CORRUPTIONS:
            result = corrupt(image, f"{kind}:5", "x")
            assert min(result.size) == 224 and result.mode == "RGB"
            assert result.width * image.height == pytest.approx(
                result.height * image.width, rel=0.01
            )


def test_images_of_samples_are_corrupted_when_they_are_decoded_and_the_stored_ones_stay() -> None:
    image = stored(picture(64, 64))
    (sample,) = corrupt_samples([Sample("a", 0, image)], "pixelate:5")
    assert decode(sample.image).size == (224, 224) and "corruption" not in image
    (same,) = corrupt_samples([Sample("a", 0, image)], None)
    assert decode(same.image).size == (64, 64)
    (item,) = corrupt_samples(
        [Sample("a", 0, {}, Item((image, image, None), (0, 1)))], "gaussian-noise:5"
    )
    first, second = (array(decode(one)) for one in item.images[:2])
    assert not np.array_equal(first, second) and item.images[2] is None


def test_names_and_severities_are_checked() -> None:
    assert parse_corruption("fog:3") == "fog:3" and parse_corruption("none") is None
    for wrong, named in (
        ("fogg:3", "'fog'"),
        ("fog", "fog:"),
        ("fog:6", "5"),
        ("@corruptions", "75"),
    ):
        with refused(named):
            parse_corruption(wrong)
    assert len(expand_corruptions("@corruptions")) == 75
    assert expand_corruptions("@corruptions:2")[0] == "gaussian-noise:2"
    assert expand_corruptions("fog:1") == ["fog:1"]


SPEC = DatasetSpec(name="captions", target="helpers.given:Given", items=True)


def destroyed(split: Split, control: str) -> dict[str, Sample]:
    pool = split.collect_texts(split.sample_ids)
    return {s.sample_id: s for s in blind_samples(split, split.sample_ids, pool, control)}


def pixels(image: Any) -> Any:
    return np.asarray(decode(image).convert("RGB"))


@pytest.mark.parametrize("rows", [one_image(5), two_images(4)], ids=["one", "two"])
def test_nothing_of_the_image_is_left(rows: Any) -> None:
    split = load_split(DataSource(SPEC), rows=rows)
    for sample in destroyed(split, "grey").values():
        for image in sample.images:
            assert (pixels(image) == 128).all()
    noise = destroyed(split, "noise")
    seen = [pixels(image).tobytes() for sample in noise.values() for image in sample.images]
    assert len(set(seen)) == len(seen)
    again = [pixels(i).tobytes() for s in destroyed(split, "noise").values() for i in s.images]
    assert again == seen
    shuffled = destroyed(split, "shuffled-images")
    for sample in split.samples(split.sample_ids):
        assert shuffled[sample.sample_id].images != sample.images
        assert shuffled[sample.sample_id].label == sample.label


def test_each_sample_gives_its_images_to_another_one_whatever_the_order() -> None:
    names = [f"s{number}" for number in range(20)]
    given = pair_samples(names)
    assert sorted(given.values()) == sorted(names) and all(a != b for a, b in given.items())
    assert pair_samples(names[::-1]) == given
