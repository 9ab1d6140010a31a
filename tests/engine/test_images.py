"""Images are fitted as torchvision does."""

from __future__ import annotations

from PIL import Image

from bench.engine.images import resize_and_crop


def test_pictures_are_fitted_as_torchvision_does() -> None:
    wide = Image.new("RGB", (101, 50), "red")
    wide.paste("blue", (0, 0, 20, 50))
    fitted = resize_and_crop(wide, 25)
    assert fitted.size == (25, 25)
    assert fitted.getpixel((0, 12)) == (255, 0, 0)  # the blue edge is cropped away
