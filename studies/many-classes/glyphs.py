"""Classes of the study: shapes of glyphs of the fonts that matplotlib brings, by Unicode name.

Glyphs that look alike at the working size are one class, named by the first of them. A picture is
16 pixels wide, from -1 (paper) to 1 (ink).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE, FINE = 16, 64  # sides of a picture and of the drawing that it is made from, in pixels
FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf")  # the second adds shapes where the first has too few
EM = 44  # size of the font in the drawing
NEAREST = 0.1  # root mean square difference of two pictures below which they are one class

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Glyphs:
    """Distinct shapes, in the order of fonts and code points.

    `names` are Unicode names, and `blocks` the groups that these names begin with. `drawings` are
    uint8 [n, 64, 64]. `usable` is the number of glyphs drawn, and `nearest` the distance of each
    usable glyph to the nearest one before it, float32 [usable].
    """

    names: list[str]
    drawings: NDArray[np.uint8]
    nearest: Floats32

    def __len__(self) -> int:
        return len(self.names)

    def pictures(self) -> Floats32:
        """Return the upright pictures, float32 [n, 256] in [-1, 1]."""
        return shrink(self.drawings)

    def first(self, n: int) -> Glyphs:
        """Return the first `n` shapes."""
        return Glyphs(self.names[:n], self.drawings[:n], self.nearest)


def shrink(drawings: NDArray[np.uint8]) -> Floats32:
    """Return drawings at the working size, float32 [n, 256] in [-1, 1]."""
    step = FINE // SIZE
    blocks = drawings.reshape(-1, SIZE, step, SIZE, step).astype(np.float32)
    pictures: Floats32 = (blocks.mean(axis=(2, 4)) / 127.5 - 1).reshape(len(drawings), -1)
    return pictures


@cache
def distinct_glyphs(drawn_at_most: int | None = None) -> Glyphs:
    """Return the distinct shapes of the fonts' glyphs, or of so many of them."""
    drawn = [*islice((pair for font in FONTS for pair in draw_font(font)), drawn_at_most)]
    drawings = np.stack([drawing for _, drawing in drawn])
    pictures = shrink(drawings)
    nearest = np.full(len(pictures), np.inf, np.float32)
    kept: list[int] = []
    chosen = np.empty_like(pictures)  # the pictures of the rows that are kept
    halves = np.empty(len(pictures), np.float32)  # half of their squared lengths
    for row, picture in enumerate(pictures):
        n = len(kept)
        if n:
            near = chosen[(halves[:n] - chosen[:n] @ picture).argmin()]
            nearest[row] = np.sqrt(np.square(near - picture).mean())
        if nearest[row] >= NEAREST:
            chosen[n], halves[n] = picture, picture @ picture / 2
            kept.append(row)
    return Glyphs([drawn[row][0] for row in kept], drawings[kept], nearest)


def draw_font(file: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and drawing of each glyph that has a name, ink, and room in the drawing."""
    path = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / file)
    font, serif = ImageFont.truetype(path, EM), " SERIF" if "Serif" in file else ""
    for code in sorted(FT2Font(path).get_charmap()):
        if unicodedata.category(chr(code)) == "Zp":  # raqm 0.11 refuses a paragraph that is empty
            continue
        name = unicodedata.name(chr(code), "")
        left, top, right, bottom = font.getbbox(chr(code), anchor="ls")
        across, up = (FINE - left - right) / 2, 46
        inside = min(across + left, up + top) >= 0 and max(across + right, up + bottom) <= FINE
        if not name or not inside or unicodedata.combining(chr(code)):
            continue
        image = Image.new("L", (FINE, FINE))
        ImageDraw.Draw(image).text((across, up), chr(code), 255, font, anchor="ls")
        if np.asarray(image).any():
            yield name + serif, np.asarray(image)


def photograph(
    drawings: NDArray[np.uint8], classes: NDArray[np.int64], rng: np.random.Generator
) -> torch.Tensor:
    """Return pictures of these classes with drawn shear, rotation, size, shift and noise.

    float32 [n, 256].
    """
    n = len(classes)
    angle, shear = rng.normal(0, 0.12, n), rng.normal(0, 0.15, n)
    size, shift = np.exp(rng.normal(0, 0.06, n)), rng.normal(0, 0.04, (n, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[np.ones(n), shear], [np.zeros(n), np.ones(n)]])
    affine = np.einsum("ijn,jkn->nik", turn, slant) / size[:, None, None]
    theta = torch.tensor(np.concatenate([affine, shift[:, :, None]], axis=2), dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(theta, [n, 1, FINE // 2, FINE // 2], align_corners=False)
    ink = torch.from_numpy(drawings[classes])[:, None].float() / 127.5
    warped = torch.nn.functional.grid_sample(ink, grid, align_corners=False)
    pictures = torch.nn.functional.avg_pool2d(warped, FINE // 2 // SIZE).reshape(n, -1) - 1
    noise = torch.from_numpy(rng.normal(0, 0.1, pictures.shape).astype(np.float32))
    return (pictures + noise).clamp(-1, 1)
