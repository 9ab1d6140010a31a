"""List folders of images: files, splits, class folders, and warnings about what is left out."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path

from bench.contracts.dataset import Listing, Row, file_image
from bench.errors import UserError, quoted, some_of, warn_user
from bench.inputs.parsing import expand_pattern
from bench.machine.files import OutsideError, is_utf8, resolve_inside

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Files beside the images that describe them to people: nothing is missing without them.
DOCUMENT_SUFFIXES = {".bib", ".html", ".log", ".md", ".pdf", ".rst", ".txt"}
DOCUMENTS = {
    "authors",
    "changelog",
    "citation",
    "copying",
    "licence",
    "license",
    "notice",
    "readme",
}


class SkippedRows:
    """What a reader leaves out of a folder or a tar, by name, for one warning at its end."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], list[str]] = {}

    def add(self, names: Iterable[str], noun: str, which: str = "") -> None:
        """Add names of what is described by a noun in the singular and, after it, by `which`."""
        self.names.setdefault((noun, which), []).extend(names)

    def warn(self, folder: Path) -> None:
        """Issue one warning if anything is left out."""
        if text := self.text():
            warn_user(f"Left out of {folder}: {text}.")

    def text(self) -> str:
        """Return a summary of what is left out, the most frequent names first, or an empty text."""
        return ", ".join(
            f"{len(names)} {noun}{'' if len(names) == 1 else 's'}{which}"
            f" ({some_of(name for name, _ in Counter(names).most_common())})"
            for (noun, which), names in self.names.items()
            if names
        )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden or belongs to another program (`__MACOSX`)."""
    return name.startswith((".", "__"))


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders directly in a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def find_files(folder: Path, left_out: SkippedRows | None = None) -> list[Path]:
    """Return the visible files below a folder, without following links to folders (UserError).

    Whatever is skipped is added to `left_out`.
    """
    paths, left_out = list[Path](), left_out or SkippedRows()
    for parent, folders, files in os.walk(folder, onerror=_cannot_list):
        left_out.add(sorted(filter(is_hidden, folders)), "hidden folder")
        folders[:] = [name for name in folders if not is_hidden(name)]
        links = sorted(name for name in folders if Path(parent, name).is_symlink())
        left_out.add(links, "linked folder")
        for name in (*folders, *files):
            if not is_utf8(name):
                raise UserError(f"{folder}: the name {quoted(name)} is not UTF-8; rename it.")
        for name in files:
            if not is_hidden(name):
                paths.append(Path(parent, name))
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
                left_out.add([name], "hidden file")
    return sorted(paths)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"The folder {error.filename} cannot be listed: {error.strerror}.")


def find_images(
    folder: Path, left_out: SkippedRows | None = None, expected: str | None = None
) -> list[Path]:
    """Return the visible files below a folder with the suffix of an image (UserError).

    They are not opened: a corrupt image or a broken link fails alone, when it is scored. Whatever
    is skipped is added to `left_out`, except documents and files with the suffix `expected`.
    """
    left_out = left_out or SkippedRows()
    images, others = list[Path](), list[str]()
    for path in find_files(folder, left_out):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            images.append(path)
        elif suffix != expected and not _is_document(path):
            others.append(suffix or "no ending")
    left_out.add(others, "file", " of other types")
    return images


def _is_document(path: Path) -> bool:
    return path.suffix.lower() in DOCUMENT_SUFFIXES or path.name.lower() in DOCUMENTS


def check_listed(folder: Path, name: str, at: str) -> None:
    """Raise UserError unless a folder has the file that a list names at the place `at`.

    Its content, or where a link leads, is checked when it is loaded.
    """
    try:
        path = resolve_inside(folder, name)
    except OutsideError as error:
        raise OutsideError(f"{at}: {error}") from None
    if not name or not (path.exists() or (folder / name).is_symlink()):
        raise UserError(f"{at}: there is no file {quoted(name)} in {folder}.")


SPLIT_NAMES = ("test", "validation", "val", "valid", "train")  # in order of preference


def usual_name(split: str) -> str:
    """Return the usual name of a split: `test` for `Test` and `testing`."""
    return split.lower().removesuffix("ing")


def splits_of(source: Path, ending: str) -> dict[str, list[Path]]:
    """Return the files with a suffix, by split (UserError).

    The name of a file, or of its folder, begins with the split. Others form the split `all`, as do
    those of a pattern such as `{000..031}.tar`.
    """
    if not source.is_dir():
        return {"all": expand_pattern(str(source))}
    by_split: dict[str, list[Path]] = {}
    prefix = re.compile("|".join(SPLIT_NAMES))
    for path in find_files(source):
        if path.suffix.lower() == ending:
            match = prefix.match(path.stem) or prefix.match(path.parent.name)
            by_split.setdefault(match.group() if match else "all", []).append(path)
    return by_split


def chosen_split(split: str | None, splits: Collection[str], what: str) -> str:
    """Return the requested split, else the preferred one of those that exist (UserError)."""
    usual = (name for known in SPLIT_NAMES for name in splits if usual_name(name) == known)
    name = split or next(chain(usual, splits), "all")
    if name not in splits:
        has = ", ".join(splits) or "none"
        raise UserError(f"{what} has no split {quoted(name)}; it has: {has}.")
    return name


def load_images(folder: Path, split: str, parts: Sequence[Path] = ()) -> Listing:
    """Return the images below `folder`, labelled by their class folders (UserError).

    `parts` are the folders of all splits, if `folder` is one of them. The classes of the others are
    known too, and a class folder without images is then no mistake.
    """
    left_out = SkippedRows()
    files = find_images(folder, left_out)
    _check_in_class_folders(folder, files, left_out)
    names = {path.relative_to(folder).parts[0] for path in files}
    elsewhere = {
        path.relative_to(part).parts[0]
        for part in parts
        if part != folder
        for path in find_images(part)
        if path.parent != part  # an image in no class folder
    }
    empty = [
        path.name
        for path in subfolders(folder)
        if path.name not in names | elsewhere and not path.is_symlink()
    ]
    left_out.add(empty, "class folder", " without images")
    if parts:
        beside = [path.name for path in subfolders(folder.parent) if path not in parts]
        left_out.add(beside, "folder", " beside the splits")
    left_out.warn(folder)
    rows = []
    for path in files:
        sample_id = path.relative_to(folder).as_posix()
        rows.append(Row(sample_id, file_image(path), sample_id.split("/")[0]))
    return Listing(rows, split, str(folder), lambda: sorted(names), elsewhere=lambda: elsewhere)


def _check_in_class_folders(folder: Path, files: Sequence[Path], left_out: SkippedRows) -> None:
    """Raise UserError if there are no images, or one lies beside the folders of classes."""
    if not files:
        beside = f" ({left_out.text()})" if left_out.text() else ""
        raise UserError(
            f"The folder {folder} holds no images{beside}. Put each class's images into a folder"
            f" of its own, such as {folder / 'cat' / '1.png'}."
        )
    loose = next((path for path in files if path.parent == folder), None)
    if loose is not None:
        tables = [path for path in find_files(folder) if path.suffix.lower() in (".csv", ".jsonl")]
        table = quoted(str(tables[0])) if tables else "FILE.csv"
        raise UserError(
            f"{loose} lies in no class folder. Put each class's images into a folder of its"
            f" own, such as {folder / 'cat' / loose.name}, or list the labels in a table, by"
            f" --labels {table} or a metadata.csv beside them (file_name,label). For pictures"
            " without a label there is `bench classify`."
        )
