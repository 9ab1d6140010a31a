"""What lies in a folder of images: the images, and in one line what is left out."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchWarning, UserError, quoted
from bench.machine.files import is_utf8

IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
NAMED = 3  # folders or types named in a message


@dataclass
class LeftOut:
    """What of a folder is not used.

    Attributes:
        folders: hidden ones and those of other programs, such as `.git` and `__MACOSX`.
        links: linked folders.
        hidden: hidden files that are called images.
        types: endings of files that are no images, with their number.
        classes: class folders without an image.
        beside: folders beside those of the splits.
        others: anything else, in words.
    """

    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    hidden: int = 0
    types: Counter[str] = field(default_factory=Counter)
    classes: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def tell(self, folder: Path) -> None:
        """Warn in one line, if anything is left out."""
        if text := self.text():
            warnings.warn(f"Left out of {folder}: {text}.", BenchWarning, stacklevel=2)

    def text(self) -> str:
        """Return in words what is left out; empty: nothing."""
        types = [name or "no ending" for name, _ in self.types.most_common()]
        parts = [
            _count(self.folders, "hidden folder"),
            _count(self.links, "linked folder"),
            plural(self.hidden, "hidden file") if self.hidden else "",
            f"{plural(self.types.total(), 'file')} of other types ({_some(types)})"
            if types
            else "",
            _count(self.classes, "class folder", "without images "),
            _count(self.beside, "folder", "beside the splits "),
            *self.others,
        ]
        return ", ".join(part for part in parts if part)


def _count(names: list[str], what: str, which: str = "") -> str:
    return f"{plural(len(names), what)} {which}({_some(names)})" if names else ""


def plural(count: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown}, …" if len(names) > NAMED else shown


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden or kept by another program, as `__MACOSX` is."""
    return name.startswith((".", "__"))


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def find_files(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the visible files below a folder; links to folders are not followed.

    Raises:
        UserError: a folder cannot be listed, or a name is not UTF-8.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_cannot_list):
        left_out.folders += sorted(filter(is_hidden, folders))
        folders[:] = [name for name in folders if not is_hidden(name)]
        left_out.links += sorted(name for name in folders if Path(parent, name).is_symlink())
        for name in (*folders, *files):
            if not is_utf8(name):
                raise UserError(f"{folder}: the name {quoted(name)} is not UTF-8; rename it.")
        for name in files:
            if not is_hidden(name):
                found.append(Path(parent, name))
            elif Path(name).suffix.lower() in IMAGES:
                left_out.hidden += 1
    return sorted(found)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"The folder {error.filename} cannot be listed: {error.strerror}.")


def find_images(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return the files below a folder that are called images, hidden ones left out.

    They are named, not opened: one that is corrupt, a broken link or no file at all is found when
    its turn comes, and costs no other.

    Raises:
        UserError: as `find_files`.
    """
    files = find_files(folder, left_out)
    images = [path for path in files if path.suffix.lower() in IMAGES]
    left_out.types.update(ending for path in files if (ending := path.suffix.lower()) not in IMAGES)
    return images


def tell_missing(names: Sequence[str], source: Path) -> None:
    """Warn of classes that only other splits have images of."""
    if names:
        shown = f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
        what, count = ("class", "it is") if len(names) == 1 else ("classes", "they are")
        warnings.warn(
            f"{source} has no images of {len(names)} {what} that other splits have ({shown});"
            f" {count} still among the possible answers.",
            BenchWarning,
            stacklevel=3,
        )
