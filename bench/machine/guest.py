"""A library is a guest: what it changes in the process of its caller, it restores.

The libraries that print are silent while `bench` works, and afterwards as the caller had them.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")

LIBRARIES = ("huggingface_hub", "datasets", "transformers", "diffusers")

_lock = Lock()
_open_blocks = 0  # of `at_work`, in all threads
_restoring = ExitStack()  # what the end of the last block restores
_borrowed: set[str] = set()  # names of the settings that it restores


@contextmanager
def at_work() -> Iterator[None]:
    """Silence libraries within the block, those that it imports too; restore them at its end.

    Blocks can be nested, and all threads share them, because they share the libraries: the end of
    the last one restores what was before the first.
    """
    global _open_blocks
    with _lock:
        _open_blocks += 1
    try:
        silence_imported()
        yield
    finally:
        with _lock:
            _open_blocks -= 1
            if not _open_blocks:
                _borrowed.clear()
                _restoring.pop_all().close()


def borrow(name: str, read: Callable[[], T], write: Callable[[T], object], value: T) -> None:
    """Give a setting of the process another value until work ends; outside work, leave it alone."""
    with _lock:
        if _open_blocks and name not in _borrowed:
            _borrowed.add(name)
            _restoring.callback(write, read())
            write(value)


def borrow_variable(name: str, value: str | None) -> None:
    """Give a variable of the environment another value, None for none, until work ends."""
    borrow(f"variable {name}", lambda: os.environ.get(name), partial(set_variable, name), value)


def set_variable(name: str, value: str | None) -> None:
    """Set a variable of the environment; None removes it."""
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value


def silence_imported() -> None:
    """Silence the libraries that are imported by now: their logs, and all bars but downloads'.

    The state of torch's random numbers, which models draw from when they are created, is restored,
    too.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_rng_state"):  # it has not, while it is imported
        state = torch.get_rng_state()
        borrow("random numbers of torch", lambda: state, torch.set_rng_state, state)
    for name in LIBRARIES:
        if name in sys.modules:
            logs = import_module(f"{name}.utils.logging")
            # huggingface_hub logs every retry; the final error message is ours.
            borrow(f"logs of {name}", logs.get_verbosity, logs.set_verbosity, logging.ERROR)
            if name != "huggingface_hub":
                hide_bars(name)


def hide_bars(name: str) -> None:
    """Hide a library's progress bars until work ends; those of `huggingface_hub` are downloads."""
    if name in ("datasets", "huggingface_hub"):
        bars: Any = import_module(f"{name}.utils.tqdm")
        hide, show = bars.disable_progress_bars, bars.enable_progress_bars
        hidden = bars.are_progress_bars_disabled
    else:
        bars = import_module(f"{name}.utils.logging")
        hide, show = bars.disable_progress_bar, bars.enable_progress_bar

        def hidden() -> bool:
            return not bars.is_progress_bar_enabled()

    def write(hides: bool) -> None:
        downloads: Any = import_module("huggingface_hub.utils.tqdm")
        before = downloads.are_progress_bars_disabled()
        (hide if hides else show)()
        # transformers switches those of downloads, too.
        if name == "transformers" and downloads.are_progress_bars_disabled() != before:
            (downloads.disable_progress_bars if before else downloads.enable_progress_bars)()

    borrow(f"bars of {name}", hidden, write, True)
