"""Folders of images: what lies there and is left out, their splits, and a folder per class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets

from bench.errors import UserError, quoted, some_of, warn_user
from bench.inputs.rows import labelled_images
from bench.machine.files import is_utf8

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass
class LeftOut:
    """Parts of a folder that are not used."""

    folders: list[str] = field(default_factory=list)
    """Hidden ones and those of other programs, such as `.git` and `__MACOSX`."""
    links: list[str] = field(default_factory=list)  # linked folders
    hidden: int = 0  # number of hidden files with the suffix of an image
    types: Counter[str] = field(default_factory=Counter)
    """Number of files by suffix, of those that are no images."""
    others: list[str] = field(default_factory=list)  # anything else, in words

    def tell(self, folder: Path) -> None:
        """Warn in one line, if anything is left out."""
        if text := self.text():
            warn_user(f"Left out of {folder}: {text}.")

    def text(self) -> str:
        """Return in words what is left out; empty: nothing."""
        types = [name or "no ending" for name, _ in self.types.most_common()]
        parts = [
            _count(self.folders, "hidden folder"),
            _count(self.links, "linked folder"),
            plural(self.hidden, "hidden file") if self.hidden else "",
            f"{plural(self.types.total(), 'file')} of other types ({some_of(types)})"
            if types
            else "",
            *self.others,
        ]
        return ", ".join(part for part in parts if part)


def _count(names: list[str], what: str, which: str = "") -> str:
    return f"{plural(len(names), what)} {which}({some_of(names)})" if names else ""


def plural(count: int, what: str) -> str:
    """Return a number with its noun."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden or kept by another program, as `__MACOSX` is."""
    return name.startswith((".", "__"))


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def find_files(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return the visible files below a folder, links to folders not followed (UserError)."""
    paths, left_out = list[Path](), left_out or LeftOut()
    for parent, folders, files in os.walk(folder, onerror=_cannot_list):
        left_out.folders += sorted(filter(is_hidden, folders))
        folders[:] = [name for name in folders if not is_hidden(name)]
        left_out.links += sorted(name for name in folders if Path(parent, name).is_symlink())
        for name in (*folders, *files):
            if not is_utf8(name):
                raise UserError(f"{folder}: the name {quoted(name)} is not UTF-8; rename it.")
        for name in files:
            if not is_hidden(name):
                paths.append(Path(parent, name))
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
                left_out.hidden += 1
    return sorted(paths)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"The folder {error.filename} cannot be listed: {error.strerror}.")


def find_images(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """Return the files below a folder that are called images, hidden ones left out (UserError).

    They are named, not opened: one that is corrupt, a broken link or no file at all is found when
    its turn comes, and costs no other.
    """
    left_out = left_out or LeftOut()
    files = find_files(folder, left_out)
    endings = [path.suffix.lower() for path in files]
    left_out.types.update(ending for ending in endings if ending not in IMAGE_SUFFIXES)
    return [path for path, ending in zip(files, endings, strict=True) if ending in IMAGE_SUFFIXES]


def tell_missing(names: Sequence[str], source: Path) -> None:
    """Warn of classes that only other splits have images of."""
    if names:
        what, count = ("class", "it is") if len(names) == 1 else ("classes", "they are")
        warn_user(
            f"{source} has no images of {len(names)} {what} that other splits have"
            f" ({some_of(names)}); {count} still among the possible answers."
        )


SPLIT_NAMES = ("test", "validation", "val", "valid", "train")  # in order of preference


def splits_of(source: Path, ending: str) -> dict[str, list[Path]]:
    """Return the files of each split, which a file's or its folder's name begins with."""
    if source.is_file():
        return {"all": [source]}
    by_split: dict[str, list[Path]] = {}
    begins = re.compile("|".join(SPLIT_NAMES))
    for path in find_files(source):
        if path.suffix == ending:
            named = begins.match(path.stem) or begins.match(path.parent.name)
            by_split.setdefault(named.group() if named else "all", []).append(path)
    return by_split


def chosen_split(split: str | None, there: Collection[str], what: str) -> str:
    """Return the split asked for (UserError), else the first of `SPLIT_NAMES`, or of all there."""
    name = split or next((n for n in (*SPLIT_NAMES, *there) if n in there), "all")
    if name not in there:
        has = ", ".join(there) or "none"
        raise UserError(f"{what} has no split {quoted(name)}; it has: {has}.")
    return name


def load_images(folder: Path, split: str, parts: Sequence[Path] = ()) -> datasets.Dataset:
    """Return the images below `folder`, labelled by the class folder each lies in (UserError)."""
    left_out = LeftOut()
    files = find_images(folder, left_out)
    if not files:
        beside = f" ({left_out.text()})" if left_out.text() else ""
        raise UserError(
            f"The folder {folder} holds no images{beside}. Put each class's images into a folder"
            f" of its own, such as {folder / 'cat' / '1.png'}."
        )
    loose = [path for path in files if path.parent == folder]
    if loose:
        raise UserError(
            f"{loose[0]} lies in no class folder. Put each class's images into a folder of its"
            f" own, such as {folder / 'cat' / loose[0].name}, or say the labels in a table, by"
            " --labels FILE.csv or a metadata.csv beside them (file_name,label). For pictures"
            " without a label there is `bench classify`."
        )
    names = {path.relative_to(folder).parts[0] for path in files}
    elsewhere = {
        path.relative_to(part).parts[0]
        for part in parts
        if part != folder
        for path in find_images(part)
        if path.parent != part
    }
    empty = [
        path.name
        for path in subfolders(folder)
        if path.name not in names | elsewhere and not path.is_symlink()
    ]
    unused = [path.name for path in subfolders(folder.parent) if path not in parts] if parts else []
    left_out.others += [
        _count(empty, "class folder", "without images "),
        _count(unused, "folder", "beside the splits "),
    ]
    left_out.tell(folder)
    tell_missing(sorted(elsewhere - names), folder)
    classes = datasets.ClassLabel(names=sorted(names | elsewhere))
    ids = [path.relative_to(folder).as_posix() for path in files]
    labels = [classes.str2int(sample_id.split("/")[0]) for sample_id in ids]
    columns = {"image": [str(path) for path in files], "label": labels, "sample_id": ids}
    return labelled_images(columns, classes, split)
