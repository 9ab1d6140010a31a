"""Thumbnails of the images of stored runs, read by a separate process with limits.

A stored manifest may name any data, such as an endless pipe or a table that fills the memory, so
only a process of `serve` opens the data. It has no network access and a memory limit, and can be
killed at any time.

Protocol: it reads one line of JSON, `{"settings", "side"}`, then lines with lists of sample ids. It
answers each list with one line of JSON.
"""

import base64
import json
import os
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import IO, Any

from PIL import Image

from bench.errors import UserError
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.data import load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.split import Split
from bench.machine.offline import offline
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import about, make_config
from bench.store.formats.documents import Manifest

SERVE = "from bench.reports.figures.images import serve; serve()"
START_TIMEOUT = 120.0  # seconds for the process's imports, on a busy machine
DATA_TIMEOUT = 20.0  # seconds for data that the manifest names
USER_DATA_TIMEOUT = 600.0  # seconds for a folder that the user names
TIMEOUT_PER_IMAGE = 0.5  # additional seconds per picture
PROCESSES = 4  # kept running, each with the data of one split
SIDE = 128  # pixels of a thumbnail's longer side
QUALITY = 75  # WebP
MEMORY = 2 << 30  # bytes for the data, in addition to what libraries use


@dataclass(frozen=True)
class Thumbnail:
    """An image as a page shows it, with its class in the data."""

    label: int
    kind: str | None = None  # Media type; None: the image cannot be decoded
    encoded: str = ""  # content in base64
    small: bool = False  # whether the image is so small that the picture has every pixel of it

    @property
    def content(self) -> bytes:
        """Content of the picture's file."""
        return base64.b64decode(self.encoded)


class Images:
    """Thread-safe access to thumbnails of the runs' images; each split is loaded once.

    `data_dirs` maps a dataset to its folder, and "" to that of all other datasets; without an
    entry, the data is read from where the run read it. `side` is the thumbnails' longer side in
    pixels.
    """

    def __init__(self, data_dirs: Mapping[str, str], side: int = SIDE) -> None:
        self._data_dirs, self._side = data_dirs, side
        self._processes: OrderedDict[str, _Process] = OrderedDict()
        self._lock = Lock()

    def of(self, manifest: Manifest, sample_ids: Iterable[str]) -> dict[str, Thumbnail]:
        """Return images of a run by id; UserError if they cannot be read within the limits."""
        own = self._data_dirs.get(manifest.dataset.name, self._data_dirs.get(""))
        stored = manifest.config.plain()
        settings = {
            **{n: stored[n] for n in (*about("data"), "corrupt") if stored.get(n)},
            "data_dir": own or stored.get("data_dir"),
        }
        key = json.dumps({"settings": settings, "side": self._side})
        with self._lock:
            process = self._processes.setdefault(key, _Process(key))
            self._processes.move_to_end(key)
            if len(self._processes) > PROCESSES:
                self._processes.popitem(last=False)  # ends when it is no longer referenced
        names = list(sample_ids)
        timeout = USER_DATA_TIMEOUT if own else DATA_TIMEOUT
        return process.ask(names, timeout + TIMEOUT_PER_IMAGE * len(names))


def decode_answer(answer: Any) -> dict[str, Thumbnail]:
    """Decode the answer of `answer_request`; a UserError has its message, if it failed."""
    if isinstance(answer, str):
        raise UserError(answer)
    return {name: Thumbnail(*fields) for name, fields in answer.items()}


class _Process:
    """A process that holds the data of one run. It starts with the first question."""

    def __init__(self, settings: str) -> None:
        self._settings = settings
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] = lambda: None
        self._failure = ""
        self._answers: SimpleQueue[str] = SimpleQueue()

    def ask(self, sample_ids: list[str], patience: float) -> dict[str, Thumbnail]:
        with self._lock:
            if self._failure:
                raise UserError(self._failure)
            try:
                if self._process is None:
                    self._start()
                self._write(json.dumps(sample_ids))
                return decode_answer(json.loads(self._read(patience)))
            except UserError as error:
                self._failure = str(error)
                self._end()
                raise

    def _start(self) -> None:
        pipe: Any = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE],  # -P: no code of the current folder
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the command
        )
        self._end = weakref.finalize(self, _end, process)
        Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        self._process = process
        self._read(START_TIMEOUT)
        self._write(self._settings)

    def _write(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # the process has ended; `_read` reports it
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self, patience: float) -> str:
        try:
            answer = self._answers.get(timeout=patience)
        except Empty:
            raise UserError(
                f"The images could not be read within {patience:.0f} s. --data-dir FOLDER says"
                " where they are, and waits longer."
            ) from None
        if not answer:
            raise UserError("The process that reads the images ended: they took too much memory.")
        return answer


def _listen(lines: IO[str], answers: SimpleQueue[str]) -> None:
    with suppress(ValueError):  # closed
        for line in lines:
            answers.put(line)
    answers.put("")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    with suppress(OSError), process:  # waits, and closes the pipes
        pass


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
    Thread(target=_forward, args=(lines,), daemon=True).start()
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


def _forward(lines: SimpleQueue[str]) -> None:
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
        return load_split(find_dataset(config), config.split), config.corrupt
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
