"""Safe access to files that data, weights and stored runs refer to, and atomic writing.

Files must be regular, inside their folder and limited in size. A file is opened in non-blocking
mode, so that a FIFO cannot block, and checked again once it is open. All files that come with data
are read by the functions of this module.

Links out of a folder are refused except in the layout of the Hugging Face Hub's cache, where
`snapshots/COMMIT/…` links to the sibling folder `blobs/`. TOML files are read in bounded time, with
values of bounded depth.
"""

import errno
import os
import re
import shutil
import stat
import tomllib
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.resources.abc import Traversable
from io import BufferedReader, BufferedWriter
from pathlib import Path, PurePosixPath
from threading import get_ident
from typing import Any

from bench.errors import UserError, quoted, refusing

HUB_PREFIXES = ("models--", "datasets--")  # of repository folders in the Hub's cache
NON_BLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # O_BINARY on Windows
MAX_TEXT_BYTES = 200_000_000  # twice the size of a table of a million images
LINES = "\t\n\r"  # control characters that are allowed in texts of several lines
_CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Cs: lone surrogates, as in names that are not UTF-8


class OutsideError(UserError):
    """A name leads out of the folder that it is relative to."""


def resolve_inside(root: Path, name: str) -> Path:
    """Return the path of `name` below `root` with links resolved. It need not exist.

    Raises OutsideError if it leads out of `root` or cannot be a file name.
    """
    try:
        path = Path(os.path.realpath(root / name))
    except ValueError:
        raise OutsideError(f"{root}: {quoted(name)} is not the name of a file.") from None
    if not _within(path, root):
        raise OutsideError(
            f"{root}: {quoted(name)} leads out of the folder, and only files in it are read."
            " Copy the file into it, or name a folder that holds both."
        )
    return path


def regular_file(root: Path, name: str) -> Path | None:
    """Return the path of a regular file in a folder, links resolved; None if it does not exist.

    Raises UserError if it is not regular (a FIFO or a device may block for ever), or is a link that
    leads out of the folder or nowhere.
    """
    path = root / name
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(f"{path} is a broken link.") from None
        return None
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise UserError(f"{path} cannot be read: {error}.") from None
    if not _within(real, root):
        raise UserError(
            f"{path} is a link that leads out of the folder {root}. Replace it by a copy."
        )
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is not a regular file.")
    return real


def path_exists(path: str | Path) -> bool:
    """Return whether a path exists; False for names that no file can have."""
    return os.path.exists(path)  # noqa: PTH110  # Path.exists raises if a name is too long


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; raise OSError for a folder, device or pipe."""
    try:
        _expect_regular(os.stat(path).st_mode, path)  # noqa: PTH116  # twice as fast as Path.stat
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except ValueError:
        raise OSError(f"{quoted(str(path))} is not the name of a file") from None
    descriptor = os.open(path, os.O_RDONLY | NON_BLOCKING)
    try:
        _expect_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return the content of a regular file; raise OSError if it has more than `max_bytes`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(f"{path} is larger than {max_bytes:,} bytes")
        return file.read(size)


def read_text(path: Traversable, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return the text of a UTF-8 file, or of a resource in a package, without a byte order mark.

    Raises OSError as `read_bytes` does, and UnicodeDecodeError.
    """
    content = read_bytes(path, max_bytes) if isinstance(path, Path) else path.read_bytes()
    return content.decode("utf-8-sig")


def _expect_regular(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is not a regular file")


def _within(real: Path, root: Path) -> bool:
    # Most paths are decided here without pathlib, which is slow for thousands of files.
    if str(real).startswith(f"{os.path.realpath(root).rstrip(os.sep)}{os.sep}"):
        return True
    return any(real.is_relative_to(folder) for folder in _allowed_folders(root))


def _allowed_folders(root: Path) -> Iterator[Path]:
    """Yield the folders in which the files of `root` may be."""
    real = Path(os.path.realpath(root))
    yield real
    for folder in (real, *real.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith(HUB_PREFIXES):
            yield folder
            yield repository / "blobs"
            return


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file atomically; see `replacing`."""
    with replacing(path, durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BufferedWriter]:
    """Yield a temporary file to write, which replaces `path` when the block ends without an error.

    Other processes see either the whole file or none of it, even if this process is killed, and
    with `durable` even after a power cut. Raises OSError if `path` is a device, a pipe or a folder.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it exists and is not a regular file", str(path))
    # Not mkstemp, because only the user could read its files, and results are shared.
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
            error.filename = str(path)  # the name that the user knows
        raise


def own_files(folder: Path) -> list[str]:
    """Return the names of all files below a folder that something else wrote, `a/b`, sorted.

    Raises UserError if anything below the folder, or the folder itself, is a link or special.
    """
    names, waiting = [], [""]  # "" is the folder itself
    while waiting:
        name = waiting.pop()
        if is_own_file(folder, name):
            names.append(name)
        else:
            inside = (folder / name).iterdir()
            waiting += [path.relative_to(folder).as_posix() for path in inside]
    return sorted(names)


def is_own_file(folder: Path, name: str) -> bool:
    """Return whether a folder that something else wrote has a file `a/b`; False for a folder.

    Raises UserError if it, or a folder on the way to it, is a link or special.
    """
    mode = 0
    for part in (*reversed(PurePosixPath(name).parents), PurePosixPath(name)):
        try:
            mode = (folder / part).lstat().st_mode
        except FileNotFoundError:
            return False
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
            raise UserError(
                f"{folder / part} is {kind}. Only regular files inside the folder are taken:"
                " replace it by a copy."
            )
    return stat.S_ISREG(mode)


def take_file(folder: Path, name: str, target: Path) -> None:
    """Copy a file that something else wrote in a folder, `a/b`, and replace `target` atomically.

    Nothing is moved or linked, because the file may belong to someone, and may change later. Raises
    UserError as `is_own_file` does.
    """
    if not is_own_file(folder, name):
        raise UserError(f"{folder / name} is not a file.")
    with open_regular(folder / name) as file, replacing(target, durable=False) as copy:
        shutil.copyfileobj(file, copy)


def has_control(text: str, allowed: str = "") -> bool:
    """Return whether a text has control characters or lone surrogates, except those `allowed`."""
    return not text.isprintable() and any(
        unicodedata.category(character) in _CONTROL and character not in allowed
        for character in text
    )


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded in UTF-8. Names of files may contain other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


MAX_TOML_BYTES = 2_000_000  # twice the size of a declaration with 22,000 classes
MAX_DEPTH = 50  # of nested tables and lists
INT64 = range(-(2**63), 2**63)  # the integers of TOML

# The parser's time is cubic in the parts of a dotted key: 20,000 of them took 18 seconds.
_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_DEPTH}}}")


def read_toml(file: Traversable, option: str = "") -> dict[str, object]:
    """Return the content of a TOML file, with at most 2 MB, 50 levels and 64-bit integers.

    `option` named the file, for messages. Raises UserError if it is unreadable, invalid or larger.
    """
    try:
        text = read_text(file, MAX_TOML_BYTES)
        if _LONG_KEY.search(text):
            raise ValueError(f"a key has more than {MAX_DEPTH} parts")
        table = tomllib.loads(text)
        _check_values(table)
    except RecursionError:
        reason: object = f"it is nested more than {MAX_DEPTH} deep"
    except (OSError, ValueError) as error:  # int() raises ValueError for 5,000 digits
        reason = error
    else:
        return table
    prefix = f"{option}: " if option else ""
    raise UserError(f"{prefix}{file} is not a TOML file: {str(reason)[:300]}.")


def _check_values(table: dict[str, object]) -> None:
    """Raise ValueError for integers over 64 bits, RecursionError for nesting over `MAX_DEPTH`."""
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH):
        nested: list[Any] = []
        for value in level:
            nested += value.values() if isinstance(value, dict) else value
        if any(isinstance(value, int) and value not in INT64 for value in nested):
            raise ValueError("an integer has more than 64 bits")
        level = [value for value in nested if isinstance(value, dict | list)]
    if level:
        raise RecursionError


def writing(what: object) -> AbstractContextManager[None]:
    """Turn an OSError in the block into a UserError, "`what` cannot be written"."""
    return refusing(f"{what} cannot be written: ", OSError)
