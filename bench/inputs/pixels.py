"""Decoding of images, upright and opaque, in bounded memory.

We call an image *ordinary* if it has 8 bits per channel, is upright and opaque, has at most
`LARGE_PIXELS` pixels, and is at most `MAX_ELONGATION` times as long as wide. It is decoded exactly
as PIL does. Others are turned upright, composed onto white, scaled to 8 bits, reduced in size or
cut to their middle.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader, BytesIO
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from bench.inputs.corruptions import CORRUPTED_ELONGATION, corrupt
from bench.machine.files import open_regular

VERSION = 1  # increase it when the decoding of images that are not ordinary changes
LARGE_PIXELS = 2**26  # pixels, 8192 × 8192; larger images are reduced
# Longer side in shorter sides. Whoever scales the shorter side of an image to a resolution needs
# memory in proportion to it.
MAX_ELONGATION = 64
MAX_PIXELS = 178_956_970  # pixels; PIL's limit against decompression bombs
MAX_REASON_LENGTH = 200  # characters of a PixelsError
STRIP_PIXELS = 2**22  # pixels that are converted at a time
# EPS, PS and PDF are left out, because PIL runs other programs to decode them.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PixelsError(ValueError):
    """An image that cannot be decoded. The message is the reason, on one line."""


@dataclass(frozen=True)
class Header:
    """Properties of an image that are known before its pixels are decoded."""

    pixels: int
    elongated: bool  # whether it is cut to its middle
    mode: str
    turn: Image.Transpose | None  # transposition that turns it upright; None if it is upright
    transparent: bool  # whether pixels may be transparent
    white: int | None  # value of white of integers with more than 8 bits; None if unknown
    inverted: bool  # whether 0 is white

    @cached_property
    def is_ordinary(self) -> bool:
        """Whether the image is decoded exactly as PIL does."""
        is_converted = self.turn is not None or self.transparent or _is_deep(self.mode)
        return not (is_converted or self.elongated or self.pixels > LARGE_PIXELS)


def _is_deep(mode: str) -> bool:
    return mode == "F" or mode.startswith("I")


def is_ordinary(image: Mapping[str, Any] | None) -> bool:
    """Return whether a stored image is ordinary, from its header; True if it cannot be read."""
    try:
        with open_encoded(image) as file:
            return _read_header(_open(file)).is_ordinary
    except Exception:  # PIL raises many types; the image will fail when it is decoded
        return True


def cut_to_middle(image: Image.Image, elongation: int) -> Image.Image:
    """Return the image, or its middle if it is more than `elongation` times as long as wide."""
    longest = elongation * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def decode(image: Mapping[str, Any] | None, whole: bool = False) -> Image.Image:
    """Decode a stored image: in its own mode if it is ordinary, else as L or RGB.

    `border` of the stored image is a number of pixels to cut from each side, and `corruption` has
    the arguments of `corrupt`. With `whole`, an image of any elongation is not cut. Raises
    PixelsError if the image cannot be decoded.
    """
    corruption = image.get("corruption") if image else None
    try:
        picture = _decode(image)
        if image and (border := image.get("border")):
            width, height = picture.size
            if min(width, height) <= 2 * border:
                raise PixelsError(f"its {width} × {height} pixels are all border")
            picture = picture.crop((border, border, width - border, height - border))
        if not whole:
            picture = cut_to_middle(picture, CORRUPTED_ELONGATION if corruption else MAX_ELONGATION)
        if corruption:
            picture = corrupt(picture, *corruption)
        return picture
    except PixelsError:
        raise
    except Exception as error:  # PIL raises many types, including MemoryError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PixelsError(reason[:MAX_REASON_LENGTH]) from error


def _decode(image: Mapping[str, Any] | None) -> Image.Image:
    with open_encoded(image) as file:
        opened = _open(file)
        header = _read_header(opened)
        if header.pixels > MAX_PIXELS:
            raise PixelsError(f"it has {header.pixels:,} pixels; at most {MAX_PIXELS:,} are read")
        if header.pixels > LARGE_PIXELS:
            factor = _compute_factor(opened)
            opened.draft(None, (opened.width // factor, opened.height // factor))  # JPEG only
        return _load(opened, header)


def _load(image: Image.Image, header: Header) -> Image.Image:
    image.load()
    if header.is_ordinary:
        return image
    picture = _reduce(image, header, _compute_factor(image))
    return picture.transpose(header.turn) if header.turn is not None else picture


def encode(image: Image.Image) -> bytes:
    """Return a PNG of an image in memory, which is decoded as its file is (OSError, ValueError)."""
    picture, file = _load(image, _read_header(image)), BytesIO()
    if picture.mode != "L":
        picture = picture.convert("RGB")
    picture.save(file, "PNG")
    return file.getvalue()


def _open(file: BytesIO | BufferedReader) -> Image.Image:
    Image.init()
    try:
        return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise PixelsError(f"unknown format; expected one of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise PixelsError(f"it has more than {MAX_PIXELS:,} pixels") from None


def _read_header(image: Image.Image) -> Header:
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = None
    if image.mode.startswith("I;16"):
        bits = tags.get(_BITS, (16,))
        white = 2 ** min(int(bits[0]), 16) - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM", None):  # 16 bits, in older PIL
        white = 2**16 - 1
    return Header(
        pixels=image.width * image.height,
        elongated=max(image.size) > MAX_ELONGATION * min(image.size),
        mode=image.mode,
        turn=_find_transposition(image),
        transparent=image.mode[-1] in "Aa" or "transparency" in image.info,
        white=white,
        inverted=tags.get(_PHOTOMETRIC) == 0,
    )


def _find_transposition(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that turns the image upright; None for TIFF, which PIL turns."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    try:
        # PNG's own method would decode the image to find EXIF data after the pixels.
        return _UPRIGHT.get(Image.Image.getexif(image).get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data should not cost the image
        return None


def _compute_factor(image: Image.Image) -> int:
    """Return by which whole number the sides must be divided for at most `LARGE_PIXELS`."""
    return math.ceil(math.sqrt(image.width * image.height / LARGE_PIXELS))


def _reduce(image: Image.Image, header: Header, factor: int) -> Image.Image:
    """Return L or RGB, with sides reduced by `factor` in strips, which saves a second copy."""
    if factor <= 1:
        return _flatten(image, header)
    rows = max(1, STRIP_PIXELS // (image.width * factor)) * factor
    strips = []
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.info = image.info
        strips.append(_flatten(strip, header).reduce(factor))
    whole = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    top = 0
    for strip in strips:
        whole.paste(strip, (0, top))
        top += strip.height
    return whole


def _flatten(image: Image.Image, header: Header) -> Image.Image:
    """Return the image as L or RGB with 8 bits, composed onto white."""
    if _is_deep(header.mode):
        return _to_8_bits(image, header)
    if header.transparent:
        full = image.convert("RGBA")
        picture = Image.new("RGB", full.size, "white")
        picture.paste(full, mask=full.getchannel("A"))
        return picture
    return image if image.mode == "L" else image.convert("RGB")


def _to_8_bits(image: Image.Image, header: Header) -> Image.Image:
    values = np.asarray(image)
    if header.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise PixelsError(
                "its values are floating point and not all within 0 to 1; save it with 8 or 16 bits"
            )
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if header.white is None:
        raise PixelsError(
            "its values are signed, or integers of 32 bits, and the value of white is unknown; save"
            " it with 8 or 16 bits"
        )
    scaled = (values.astype(np.uint32) * 255 + header.white // 2) // header.white  # rounded
    picture = scaled.clip(0, 255).astype(np.uint8)
    if isinstance(hidden := image.info.get("transparency"), int):
        picture[values == hidden] = 0 if header.inverted else 255
    return Image.fromarray(255 - picture if header.inverted else picture)


def open_encoded(image: Mapping[str, Any] | None) -> BytesIO | BufferedReader:
    """Open the bytes of a stored image, or its regular file (OSError if it has neither)."""
    if image is None or (image.get("bytes") is None and image.get("path") is None):
        raise FileNotFoundError("the dataset holds no image here")
    if image.get("bytes") is not None:
        return BytesIO(image["bytes"])
    return open_regular(image["path"])
