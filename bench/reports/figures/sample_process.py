"""Worker process that opens the data of one stored run and returns thumbnails.

A manifest from somebody else may name an endless pipe or a table that fills the memory, so only
this process opens the data. It has no network access and a memory limit, and can be killed at any
time.

Protocol: it reads one line of JSON, `{"settings", "side"}`, then lines with lists of sample ids. It
answers each list with one line of JSON.
"""

import base64
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from PIL import Image

from bench.errors import UserError
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.data import load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.split import Split
from bench.machine.offline import offline
from bench.running.finders import find_dataset
from bench.running.settings import make_config

SIDE = 128  # pixels of a thumbnail's longer side
QUALITY = 75  # WebP
MEMORY = 2 << 30  # bytes for the data, in addition to what libraries use


def join_images(images: Sequence[Image.Image]) -> Image.Image:
    """Return the images of an item side by side as one picture."""
    if len(images) == 1:
        return images[0]
    height = max(image.height for image in images)
    whole = Image.new("RGB", (sum(image.width for image in images), height))
    left = 0
    for image in images:
        whole.paste(image.convert("RGB"), (left, 0))
        left += image.width
    return whole


def make_thumbnail(image: Image.Image, side: int = SIDE) -> tuple[str, bytes, bool]:
    """Return media type, bytes, and whether the picture has every pixel of the image."""
    small = max(image.size) <= side // 2
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    out = BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.thumbnail((side, side))
        image.save(out, "WEBP", quality=QUALITY, method=4)
    return f"image/{'png' if small else 'webp'}", out.getvalue(), small


def serve() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of plugins go to stderr
    lines: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(lines,), daemon=True).start()
    import datasets  # noqa: F401  # before the limit, so that its memory does not count

    _limit_memory()
    answers.write("ready\n")
    answers.flush()
    request = json.loads(lines.get())
    with offline():
        split = load(request["settings"])
        while True:
            pictures = answer_request(split, json.loads(lines.get()), request["side"])
            answers.write(json.dumps(pictures) + "\n")
            answers.flush()


def _listen(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # even while the data is being loaded


def _limit_memory() -> None:
    with suppress(ImportError, OSError, ValueError):  # where a system has no such limit
        import resource

        pages = Path("/proc/self/statm").read_text("ascii").split()[5]
        taken = int(pages) * resource.getpagesize()
        # RLIMIT_DATA rather than RLIMIT_AS: mapped files do not count.
        resource.setrlimit(resource.RLIMIT_DATA, (taken + MEMORY, taken + MEMORY))


def load(settings: dict[str, object]) -> tuple[Split, str | None] | str:
    """Return the split and its corruption, or a message if the data cannot be loaded."""
    try:
        config = make_config(settings)
        data = find_dataset(config)
        split = load_split(data, config.split)
        return split, config.corrupt
    except UserError as error:
        return str(error)
    except Exception as error:  # in a plugin; a page without pictures is still useful
        return _reason(error)


def answer_request(data: tuple[Split, str | None] | str, sample_ids: list[str], side: int) -> Any:
    """Return id → fields of a `Thumbnail` for the images in the data, or an error message."""
    if isinstance(data, str):
        return data
    split, corruption = data
    pictures: dict[str, Any] = {}
    try:
        rows = split.row_of
        samples = split.samples([name for name in sample_ids if name in rows])
        for sample in corrupt_samples(samples, corruption):
            pictures[sample.sample_id] = [sample.label]
            with suppress(PixelsError):  # the run counted the image as failed
                image = join_images([decode(encoded) for encoded in sample.images])
                kind, content, small = make_thumbnail(image, side)
                pictures[sample.sample_id] += [kind, base64.b64encode(content).decode(), small]
    except Exception as error:  # the table is damaged
        return _reason(error)
    return pictures


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return f"The images take more than {MEMORY >> 30} GiB of memory."
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
