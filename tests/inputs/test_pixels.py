"""Images decoded as a person sees them, in bounded memory; a bad one fails alone."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from helpers.command import bench
from helpers.given import rows_of, spec_of, stored
from helpers.refusals import refused
from PIL import Image, PngImagePlugin

import bench as toolkit
from bench.contracts.dataset import Sample
from bench.engine.images import open_images
from bench.inputs import pixels
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import PixelsError, decode, encode, is_ordinary

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8)
COLOURS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def grey(values: Any, mode: str | None = None, kind: str = "TIFF") -> Any:
    return stored(Image.fromarray(np.asarray(values), mode), kind)


ORDINARY: dict[str, Callable[[], Any]] = {
    "grey": lambda: stored(Image.fromarray(RAMP)),
    "colour": lambda: stored(Image.fromarray(COLOURS)),
    "black and white": lambda: stored(Image.fromarray(RAMP).convert("1")),
    "a palette": lambda: stored(Image.fromarray(COLOURS).quantize(16)),
    "JPEG": lambda: stored(Image.fromarray(COLOURS), "JPEG"),
    "CMYK": lambda: stored(Image.fromarray(COLOURS).convert("CMYK"), "JPEG"),
    "TIFF": lambda: stored(Image.fromarray(COLOURS), "TIFF"),
    "WebP": lambda: stored(Image.fromarray(COLOURS), "WEBP", lossless=True),
    "upright by EXIF": lambda: stored(Image.fromarray(COLOURS), "JPEG", exif=turned(1)),
    "damaged EXIF": lambda: stored(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\0\0nonsense"),
}


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_images_come_out_as_pil_opens_them(case: str) -> None:
    image = ORDINARY[case]()
    opened, decoded = Image.open(BytesIO(image["bytes"])), decode(image)
    assert is_ordinary(image)
    assert (decoded.mode, decoded.tobytes()) == (opened.mode, opened.tobytes())


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255  # a white corner, top left
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    lying = Image.fromarray(upright).transpose(pixels._UPRIGHT[back])
    image = stored(lying, kind, exif=turned(orientation))
    seen = np.asarray(decode(image).convert("L"))
    assert seen.shape == (16, 32)
    assert abs(seen.astype(int) - upright).max() < 40  # JPEG and WebP round
    assert is_ordinary(image) == (kind == "TIFF")  # of TIFF, PIL has always turned it


def test_orientation_in_xmp_counts() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    assert decode(stored(Image.new("L", (4, 8)), pnginfo=text)).size == (8, 4)


def hidden(mode: str) -> Image.Image:
    """A black square, its right half transparent."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    return image.convert(mode)


TRANSPARENT: dict[str, Callable[[], dict[str, Any]]] = {
    "RGBA": lambda: stored(hidden("RGBA")),
    "LA": lambda: stored(hidden("LA")),
    "WebP": lambda: stored(hidden("RGBA"), "WEBP", lossless=True, exact=True),
    "TIFF": lambda: stored(hidden("RGBA"), "TIFF"),
    "grey, one shade hidden": lambda: stored(shades(), transparency=9),
    "colour, one shade hidden": lambda: stored(shades().convert("RGB"), transparency=(9, 9, 9)),
    "a palette": lambda: stored(palette(), transparency=9),
    "a palette with shares": lambda: stored(palette(), transparency=bytes([255] * 9 + [0])),
    "GIF": lambda: stored(palette(), "GIF", transparency=9),
    "16 bits, one shade hidden": lambda: stored(deep(), transparency=9),
}


def shades() -> Image.Image:
    image = Image.new("L", (8, 8), 0)
    image.paste(9, (4, 0, 8, 8))
    return image


def palette() -> Image.Image:
    image = Image.fromarray(np.asarray(shades()), "P")
    image.putpalette([0, 0, 0] * 256)
    return image


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(shades()).astype(np.uint16))


@pytest.mark.parametrize("case", TRANSPARENT)
def test_transparent_pixels_are_white(case: str) -> None:
    image = TRANSPARENT[case]()
    seen = np.asarray(decode(image).convert("L"))
    assert (seen[:, :4] == 0).all() and (seen[:, 4:] == 255).all()
    assert not is_ordinary(image)


def test_half_transparent_pixels_are_mixed_with_white_and_opaque_ones_kept() -> None:
    half = decode(stored(Image.new("RGBA", (2, 2), (200, 0, 100, 127))))
    assert np.abs(np.asarray(half)[0, 0].astype(int) - [228, 128, 178]).max() <= 1
    opaque = Image.fromarray(COLOURS).convert("RGBA")
    assert decode(stored(opaque)).tobytes() == Image.fromarray(COLOURS).tobytes()


DEEP = np.array([[0, 257, 32768, 65535]], np.uint16)
FLOATS = np.array([[0, 0.25, 0.5, 1]], np.float32)
SCALED: dict[str, tuple[Callable[[], dict[str, Any]], list[int]]] = {
    "16 bits, PNG": (lambda: grey(DEEP, kind="PNG"), [0, 1, 128, 255]),
    "16 bits, TIFF": (lambda: grey(DEEP), [0, 1, 128, 255]),
    "16 bits, big-endian": (lambda: grey(DEEP.astype(">u2")), [0, 1, 128, 255]),
    "16 bits, white is 0": (
        lambda: stored(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}),
        [255, 254, 127, 0],
    ),
    "12 bits": (lambda: {"bytes": twelve_bits(), "path": None}, [0, 255, 128, 1]),
    "16 bits, JPEG 2000": (
        lambda: stored(Image.fromarray(np.tile(DEEP, (8, 2))), "JPEG2000", irreversible=False),
        [0, 1, 128, 255],
    ),
    "floats": (lambda: grey(FLOATS), [0, 64, 128, 255]),
}


def twelve_bits() -> bytes:
    """A TIFF file of 4 × 1 pixels of 12 bits: 0, 4095, 2056, 16."""
    data = bytes([0x00, 0x0F, 0xFF, 0x80, 0x80, 0x10])
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    tags.append((279, len(data)))
    entries = b"".join(
        number.to_bytes(2, "little") + b"\3\0" + b"\1\0\0\0" + value.to_bytes(4, "little")
        for number, value in tags
    )
    directory = len(tags).to_bytes(2, "little") + entries + bytes(4)
    start = 8 + len(data)
    return b"II*\0" + start.to_bytes(4, "little") + data + directory


@pytest.mark.parametrize("case", SCALED)
def test_values_of_more_than_8_bits_are_scaled(case: str) -> None:
    make, expected = SCALED[case]
    image = make()
    decoded = decode(image)
    assert decoded.mode == "L" and np.asarray(decoded)[0, :4].tolist() == expected
    assert not is_ordinary(image)


@pytest.mark.parametrize("case", [*ORDINARY, *TRANSPARENT, *SCALED, *range(2, 9)])
def test_an_image_that_was_opened_is_seen_as_its_file(case: str | int) -> None:
    if isinstance(case, int):
        image = stored(Image.fromarray(COLOURS[:5]), "JPEG", exif=turned(case))
    else:
        image = {**ORDINARY, **TRANSPARENT, **{n: make for n, (make, _) in SCALED.items()}}[case]()
    seen = decode({"bytes": encode(Image.open(BytesIO(image["bytes"]))), "path": None})
    wanted = decode(image).convert("RGB")
    assert (seen.size, seen.convert("RGB").tobytes()) == (wanted.size, wanted.tobytes())


@pytest.mark.parametrize("mode", ["CMYK", "HSV", "YCbCr", "RGBX", "PA", "RGBa", "I", "F", "1"])
def test_an_image_in_memory_may_have_any_mode(mode: str) -> None:
    image = Image.new("L", (4, 4)).convert({"PA": "P", "RGBa": "RGBA"}.get(mode, "RGB"))
    image = Image.new(mode, (4, 4)) if mode in "IF" else image.convert(mode)
    assert decode({"bytes": encode(image), "path": None}).convert("L").getextrema() == (0, 0)


BAD: dict[str, Callable[[], dict[str, Any] | None]] = {
    "no image": lambda: None,
    "nothing in it": lambda: {"bytes": None, "path": None},
    "no bytes": lambda: {"bytes": b"", "path": None},
    "text": lambda: {"bytes": b"hello", "path": None},
    "a missing file": lambda: {"bytes": None, "path": "/none.png"},
    "a device": lambda: {"bytes": None, "path": os.devnull},
    "EPS": lambda: stored(Image.new("RGB", (4, 4)), "EPS"),
    "PDF": lambda: stored(Image.new("RGB", (4, 4)), "PDF"),
    "a torn file": lambda: {"bytes": stored(noise(), "JPEG")["bytes"][:2000], "path": None},
    "32 bits": lambda: grey(np.array([[0, 70000]], np.int32)),
    "signed": lambda: grey(np.array([[-1, 5]], np.int32)),
    "floats above 1": lambda: grey(FLOATS * 255),
    "floats below 0": lambda: grey(FLOATS - 0.1),
    "NaN": lambda: grey(FLOATS * np.nan),
    "a bomb": lambda: {"bytes": promise(50_000, 50_000), "path": None},
}
# What the refusal names, where it might be refused later for another reason.
NAMED = {"a missing file": "/none.png", "a device": os.devnull, "a bomb": "178,956,970"}
NAMED |= dict.fromkeys(("EPS", "PDF"), "format")


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), dtype=np.uint8))


def promise(width: int, height: int) -> bytes:
    """A PNG file whose header says that it is large, and nothing more."""
    data = bytearray(stored(Image.new("L", (1, 1)))["bytes"])
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_fails_alone(case: str) -> None:
    bad, good = BAD[case](), ORDINARY["colour"]()
    with refused(NAMED.get(case, ""), kind=PixelsError) as error:
        decode(bad)
    assert "BytesIO" not in str(error.value) and "\n" not in str(error.value)
    images: list[Any] = [good, bad, good]
    samples = [Sample(str(i), 0, image) for i, image in enumerate(images)]
    (group,) = open_images(samples, 8)
    assert [isinstance(image, str) for _, image in group] == [False, True, False]


def test_the_limit_of_pixels_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.inputs.pixels.MAX_PIXELS", 99 * 99 - 1)
    with refused("9,801", "9,800", kind=PixelsError):
        decode(stored(noise()))


def test_whatever_the_decoder_raises_is_one_image_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (MemoryError(), RecursionError("deep"), SyntaxError("x\ny"), OverflowError("z")):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(pixels, "_open", fail)
        with pytest.raises(PixelsError) as raised:
            decode(ORDINARY["grey"]())
        assert str(raised.value) and "\n" not in str(raised.value)


def test_only_images_that_are_not_ordinary_enter_the_identity() -> None:
    from datasets import ClassLabel, Dataset

    rows = rows_of([0, 1], ClassLabel(names=["a", "b"]))
    plain = load_split(DataSource(spec_of(rows)))
    assert plain.decoding is None
    images = [plain.rows[0]["image"], TRANSPARENT["RGBA"]()]
    mixed = Dataset.from_list(
        [{"image": image, "label": i} for i, image in enumerate(images)], features=rows.features
    )
    assert load_split(DataSource(spec_of(mixed))).decoding == pixels.VERSION


def test_the_python_interface_gives_the_same_pixels(tmp_path: Path) -> None:
    for name, image in (("a", TRANSPARENT["RGBA"]()), ("b", stored(Image.new("L", (4, 4)), "EPS"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(image["bytes"])
    rows = toolkit.load_dataset(str(tmp_path))
    assert rows[0]["image"].tobytes() == decode(TRANSPARENT["RGBA"]()).tobytes()
    assert [image.size for image in rows.select([0])["image"]] == [(8, 8)]
    with pytest.raises(PixelsError):  # and Ghostscript is not asked
        rows[1]["image"]


def test_a_picture_that_is_none_is_not_classified(tmp_path: Path) -> None:
    (tmp_path / "c.png").write_bytes(b"no picture")
    done = bench("classify", tmp_path / "c.png", "--classes", "a,b", "--backbone", "random")
    assert done.code == 3 and "c.png" in done.out
