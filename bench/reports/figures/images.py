"""Thumbnails of the images of stored runs, read by a separate process with limits.

A stored manifest may name any data, so reading a run does not open it; see `sample_process`.
"""

import base64
import json
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import IO, Any

from bench.errors import UserError
from bench.reports.figures.sample_process import SIDE
from bench.running.settings import about
from bench.store.documents import Manifest

SERVE = "from bench.reports.figures.sample_process import serve; serve()"
START_TIMEOUT = 120.0  # seconds for the process's imports, on a busy machine
DATA_TIMEOUT = 20.0  # seconds for data that the manifest names
USER_DATA_TIMEOUT = 600.0  # seconds for a folder that the user names
TIMEOUT_PER_IMAGE = 0.5  # additional seconds per picture
PROCESSES = 4  # kept running, each with the data of one split


@dataclass(frozen=True)
class Thumbnail:
    """An image as a page shows it, with its class in the data."""

    label: int
    kind: str | None = None  # Media type; None: the image cannot be decoded
    encoded: str = ""  # content in base64
    small: bool = False  # whether the picture has every pixel of the image

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
        self._turn = Lock()

    def of(self, manifest: Manifest, sample_ids: Iterable[str]) -> dict[str, Thumbnail]:
        """Return images of a run by id; UserError if they cannot be read within the limits."""
        own = self._data_dirs.get(manifest.dataset.name, self._data_dirs.get(""))
        stored = manifest.config.plain()
        settings = {
            **{n: stored[n] for n in (*about("data"), "corrupt") if stored.get(n)},
            "data_dir": own or stored.get("data_dir"),
        }
        key = json.dumps({"settings": settings, "side": self._side})
        with self._turn:
            process = self._processes.setdefault(key, _Process(key))
            self._processes.move_to_end(key)
            if len(self._processes) > PROCESSES:
                self._processes.popitem(last=False)  # ends when it is no longer referenced
        names = list(sample_ids)
        timeout = USER_DATA_TIMEOUT if own else DATA_TIMEOUT
        return process.ask(names, timeout + TIMEOUT_PER_IMAGE * len(names))


def decode_answer(answer: Any) -> dict[str, Thumbnail]:
    """Decode the answer of `sample_process.answer`; a UserError has its message, if it failed."""
    if isinstance(answer, str):
        raise UserError(answer)
    return {name: Thumbnail(*fields) for name, fields in answer.items()}


class _Process:
    """A process that holds the data of one run. It starts with the first question."""

    def __init__(self, settings: str) -> None:
        self._settings = settings
        self._turn = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] = lambda: None
        self._failure = ""
        self._answers: SimpleQueue[str] = SimpleQueue()

    def ask(self, sample_ids: list[str], patience: float) -> dict[str, Thumbnail]:
        with self._turn:
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
        arguments = (process.stdout, self._answers)
        Thread(target=_listen, args=arguments, daemon=True).start()
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
