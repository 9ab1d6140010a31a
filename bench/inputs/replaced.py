"""Replacement of images before scoring: cropping to boxes, and blind controls.

    grey              every image is uniformly grey
    noise             every pixel is random
    shuffled-images   every sample gets the images of another sample
    text-only         images are unchanged, but a likelihood scores the texts without them

Controls depend only on the split and the sample id: not on order, limit or seed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from bench.contracts.dataset import Rows, Sample, StoredImage
from bench.errors import UserError, quoted
from bench.inputs.parsing import check_column
from bench.inputs.pixels import VERSION, PixelsError, decode
from bench.inputs.prompts import Prompts
from bench.inputs.rows import find_stored_rows, make_dataset, read_column
from bench.inputs.split import Split
from bench.inputs.survey import find_source_files, survey
from bench.machine.cache import cache_dir, cached_arrow
from bench.machine.libraries import datasets, pa

GREY = 128
BATCH = 256  # cropped images that are written at a time
TEXT_ONLY = "text-only"
Stored = StoredImage | None


def blind_samples(
    split: Split, sample_ids: Iterable[str], pool: Prompts, control: str
) -> Iterator[Sample]:
    """Yield samples with images that carry no information about their answers.

    Raises UserError if the control is `shuffled-images` and there is a single sample.
    """
    partner = pair_samples(split.sample_ids) if control == "shuffled-images" else {}
    for sample in split.samples(sample_ids, pool):
        if control == "shuffled-images":
            images = split.images(partner[sample.sample_id])
        elif control == "noise":
            names = [f"{sample.sample_id} {number}" for number in range(len(sample.images))]
            images = tuple(map(_erase_content, sample.images, names))
        else:  # grey
            images = tuple(map(_erase_content, sample.images))
        yield sample.with_images(images)


def pair_samples(sample_ids: Sequence[str]) -> dict[str, str]:
    """Return for each sample another one, whose images it gets: the next by the hash of the id.

    Raises UserError if there are fewer than two samples.
    """
    if len(sample_ids) < 2:
        raise UserError("--control shuffled-images needs two samples or more.")
    order = sorted(sample_ids, key=lambda name: hashlib.sha256(name.encode()).digest())
    return dict(zip(order, [*order[1:], order[0]], strict=True))


def _erase_content(image: Stored, name: str | None = None) -> Stored:
    """Return an image of its size: grey, or noise derived from a name; unchanged if unreadable."""
    try:
        width, height = decode(image).size
    except PixelsError:
        return image
    pixels = np.full((height, width, 3), GREY, np.uint8)
    if name is not None:
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        pixels = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return {"bytes": file.getvalue(), "path": None}


def crop_to_column(rows: Rows, column: str, where: str) -> Rows:
    """Return the rows with each image cropped to the box in a column.

    Boxes are x, y, width, height in pixels of the upright image. Raises UserError if there is no
    such column, or a box does not overlap its image.
    """
    check_column(column, rows.column_names, where)
    at = [f"{where}: image {row}" for row in range(1, len(rows) + 1)]
    return crop_to_boxes(rows, read_column(rows, column), at)


def crop_to_boxes(rows: Rows, boxes: Sequence[Any], at: Sequence[str]) -> Rows:
    """Return the rows with each image cropped to its box; `at` names the images in messages.

    The images are stored uncompressed, so that their bytes do not depend on the version of a
    library, and in a file of the cache instead of in memory.
    """
    plain = rows.cast_column("image", datasets.Image(decode=False))
    table, places = find_stored_rows(plain)
    surveyed = survey(table.column("image"), find_source_files(plain, table))
    state = hashlib.sha256(f"boxes {VERSION}".encode())
    for place, box in zip(places, boxes, strict=True):
        state.update(f"{surveyed.digest(place)} {box}".encode(errors="surrogateescape"))
    kind = datasets.Image.pa_type
    schema = pa.schema({"image": kind})

    def write_batches() -> Iterator[Any]:
        for start in range(0, len(plain), BATCH):
            part = plain[start : start + BATCH]["image"]
            images = [crop_image(image, boxes[n], at[n]) for n, image in enumerate(part, start)]
            yield pa.table({"image": pa.array(images, kind)}, schema=schema)

    target = cache_dir("boxes") / f"{state.hexdigest()[:32]}.arrow"
    file = cached_arrow(target, schema, write_batches)
    images = datasets.Dataset.from_file(str(file)).data.table.column("image")
    # The other columns are small, so they are copied for the selected rows.
    table = table.drop_columns(["image"])
    if places != range(len(table)):
        table = table.take(places)
    table = table.append_column("image", images)
    features = datasets.Features({name: rows.features[name] for name in table.column_names})
    features["image"] = datasets.Image()
    return make_dataset(table, features, rows.split, [file])


def crop_image(image: StoredImage, box: Any, where: str) -> StoredImage:
    """Crop an image, if it can be decoded, to its box (UserError if that is invalid or outside)."""
    try:
        picture = decode(image, whole=True)
    except PixelsError:  # the image is counted as failed when it is scored
        return image
    corners = _parse_box(box, picture.size)
    if corners is None:
        raise UserError(
            f"{where} of {picture.size[0]}×{picture.size[1]} pixels has the box"
            f" {quoted(box)}; expected x, y, width, height of a box that overlaps it."
        )
    file = BytesIO()
    picture.crop(corners).convert("RGB").save(file, "PPM")
    return {"bytes": file.getvalue(), "path": None}


def _parse_box(box: Any, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom, cut to the image, or None if it is invalid or outside."""
    if isinstance(box, str):  # from a CSV file
        box = box.strip("[]() ").replace(",", " ").split()
    if not isinstance(box, list) or len(box) != 4:
        return None
    try:
        x, y, width, height = (round(float(value)) for value in box)
    except (TypeError, ValueError, OverflowError):
        return None
    left, top = max(0, x), max(0, y)
    right, bottom = min(size[0], x + width), min(size[1], y + height)
    return (left, top, right, bottom) if left < right and top < bottom else None
