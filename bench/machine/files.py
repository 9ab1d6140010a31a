"""Files that data, weights and stored runs name: regular, inside their folder and bounded in size.

A file is opened without waiting for it, so that a FIFO cannot block, and is checked again when it
is open. Everything that came with data is read by the functions of this module.

One layout of links is allowed: that of the Hugging Face Hub's cache, where `snapshots/COMMIT/…`
links to `blobs/` beside it.
TOML files are read in bounded time, with values of bounded depth.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tomllib
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from io import BufferedReader, BufferedWriter
from pathlib import Path
from threading import get_ident
from typing import Any

from bench.errors import UserError, quoted

HUB = ("models--", "datasets--")  # how the Hub's cache names the copy of a repository
NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # the latter: Windows
LARGEST_TEXT = 200_000_000  # bytes, twice a table of a million images
LINES = "\t\n\r"  # control characters that texts of several lines have
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Cs: half of a pair, as in a name that was not UTF-8


class OutsideError(UserError):
    """A name that leads out of the folder it was found in."""


def inside(root: Path, name: str) -> Path:
    """Return the file that `name` means below `root`, links resolved, if any; else OutsideError."""
    try:
        path = Path(os.path.realpath(root / name))
    except ValueError:
        raise OutsideError(f"{root}: {quoted(name)} is not the name of a file.") from None
    if not _within(path, root):
        raise OutsideError(
            f"{root}: {quoted(name)} leads out of the folder, and only what lies in it is read."
            " Copy the file into it, or name a folder that holds both."
        )
    return path


def regular_file(root: Path, name: str) -> Path | None:
    """Return a regular file of a folder, links resolved; None if it is not there.

    A UserError for anything else, since a FIFO or a device may block for ever, and for a link that
    leads out of the folder.
    """
    path = root / name
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(f"{path} is a broken link.") from None
        return None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a circle of links
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not _within(real, root):
        raise UserError(
            f"{path} is a link that leads out of the folder {root}. Put a copy in its place."
        )
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file.")
    return real


def is_there(path: str | Path) -> bool:
    """Return whether a path exists; False for what cannot be the name of a file."""
    return os.path.exists(path)  # noqa: PTH110  # pathlib's raises on names that are too long


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; an OSError for a folder, device or pipe, unopened."""
    try:
        _expect_regular(os.stat(path).st_mode, path)  # noqa: PTH116  # twice as quick as pathlib's
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except ValueError:
        raise OSError(f"{quoted(str(path))} is not the name of a file") from None
    descriptor = os.open(path, os.O_RDONLY | NO_WAITING)
    try:
        _expect_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, most: int = LARGEST_TEXT) -> bytes:
    """Return the content of a regular file of at most so many bytes; an OSError otherwise."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(f"{path} is larger than {most:,} bytes")
        return file.read(size)


def read_text(path: Traversable, most: int = LARGEST_TEXT) -> str:
    """Return the text of a file, or of one in a package, without a byte order mark (OSError)."""
    content = read_bytes(path, most) if isinstance(path, Path) else path.read_bytes()
    return content.decode("utf-8-sig")


def _expect_regular(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is not a regular file")


def _within(real: Path, root: Path) -> bool:
    # The usual case is decided without pathlib, which is slow for thousands of files.
    if str(real).startswith(f"{os.path.realpath(root).rstrip(os.sep)}{os.sep}"):
        return True
    return any(real.is_relative_to(place) for place in _places(root))


def _places(root: Path) -> Iterator[Path]:
    """Yield the folders in which a folder's files may lie."""
    real = Path(os.path.realpath(root))
    yield real
    for folder in (real, *real.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith(HUB):
            yield folder
            yield repository / "blobs"
            return


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file at once; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BufferedWriter]:
    """Yield a file to write, which takes the place of `path` when the block ends without an error.

    A reader, or the next process after a kill, sees all of it or none; if it is `durable`, also
    after a power cut.

    Raises:
        OSError: it cannot be written, or a device, a pipe or a folder has its name.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is there, and is not a regular file", str(path))
    # Not mkstemp: its files are for the user alone, and results are read by others.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}")
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)  # the name that its user knows
        raise


def link(file: Path, target: Path) -> None:
    """Link a file that is never changed, or copy it where links are impossible; atomic."""
    temporary = target.with_suffix(".partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(file, temporary)
    except OSError:
        shutil.copyfile(file, temporary)
    temporary.replace(target)


def has_control(text: str, allowed: str = "") -> bool:
    """Return whether a text has control characters, other than `allowed`, or lone surrogates."""
    return not text.isprintable() and any(
        unicodedata.category(character) in _CONTROL and character not in allowed
        for character in text
    )


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded; names of files need not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


MOST_BYTES = 2_000_000  # twice the declaration of 22,000 classes
DEEPEST = 50  # tables and lists in each other
INT64 = range(-(2**63), 2**63)  # the integers of TOML

# The parser's time is cubic in the parts of a dotted key: 20,000 of them took 18 seconds.
_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST}}}")


def read_toml(file: Traversable, option: str = "") -> dict[str, Any]:
    """Return the content of a TOML file, which `option` named, for messages (UserError).

    It has at most 2 MB, 50 levels and integers of 64 bits.
    """
    try:
        text = read_text(file, MOST_BYTES)
        if _LONG_KEY.search(text):
            raise ValueError(f"a key has more than {DEEPEST} parts")
        table = tomllib.loads(text)
        _check(table)
    except RecursionError:
        error: object = f"it is nested more than {DEEPEST} deep"
    except (OSError, ValueError) as wrong:  # int() raises ValueError on 5,000 digits
        error = wrong
    else:
        return table
    prefix = f"{option}: " if option else ""
    raise UserError(f"{prefix}{file} is not a TOML file: {str(error)[:300]}.")


def _check(table: dict[str, Any]) -> None:
    """Refuse values that could not be printed, hashed or stored."""
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        nested: list[Any] = []
        for value in level:
            nested += value.values() if isinstance(value, dict) else value
        if any(isinstance(value, int) and value not in INT64 for value in nested):
            raise ValueError("an integer has more than 64 bits")
        level = [value for value in nested if isinstance(value, dict | list)]
    if level:
        raise RecursionError


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn a failure to write into a UserError: WHAT cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error}.") from None
