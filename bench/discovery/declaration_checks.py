"""Checks of a dataset's TOML declaration: types of its keys, and files that it may refer to.

A declaration that `bench run ./folder` finds was written by whoever made the data, so it must not
make the toolkit read other files or use the network. Each check raises a UserError for the first
problem; `where` is the file, for messages.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.contracts.specs import DatasetSpec
from bench.contracts.typed import annotations_of, mismatch, unknown_key
from bench.errors import UserError, did_you_mean, quoted, warn_user
from bench.machine.files import OutsideError, has_control, resolve_inside

PLACEHOLDER = "{class}"
DOWNLOAD = "download"  # the source of a dataset that is read only from a local original download
UNKNOWN_COUNT = "unknown"  # as the number of images of a split
LISTS = ("classes", "found", "groups")  # their values are lists of texts or names of text files
SETS = ("templates", "labels")  # tables of such lists
TABLE_KEYS = ("table", "file_column", "label_column", "split_column", "split_values")
# Fields of `DatasetSpec` that a declaration cannot have.
NOT_DECLARED = ("target", "extra", "parameters", "owner", "takes_data_dir", "scheme", "paths")
_SCHEME = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")


def is_path(source: str) -> bool:
    """Return whether a source is a file or folder, rather than `hf:owner/name` or the like."""
    return source != DOWNLOAD and not _SCHEME.match(source)


def check_references(table: Mapping[str, Any], where: str, folder: Path, in_data: bool) -> None:
    """Check that a declaration refers only to text files, and to a source, in `folder`.

    If it came with the data (`in_data`), another reference raises a UserError; otherwise it only
    causes a warning. The keys and types of the values must have been checked.
    """
    outside = [
        f"{key} = {quoted(name)}"
        for key, name in _references(table)
        if _is_outside(folder, key, name, in_data)
    ]
    if outside and in_data:
        raise UserError(
            f"{where} came with the data, but refers to something outside its folder: {outside[0]}."
            f" If you trust it, name the file itself: bench run {where}"
        )
    if outside:
        warn_user(f"{where} refers to something outside its folder: {', '.join(outside)}.")


def _references(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key whose value refers to a source, weights or a text file, with the value."""
    names = {key: table.get(key) for key in ("source", "backbone", *LISTS)}
    names["layout.reader"] = table.get("layout", {}).get("reader")
    for sets in SETS:
        names |= {f"{sets}.{key}": value for key, value in table.get(sets, {}).items()}
    yield from ((key, name) for key, name in names.items() if isinstance(name, str))


def _is_outside(folder: Path, key: str, name: str, in_data: bool) -> bool:
    """Return whether a reference is to something outside `folder`, such as a backbone."""
    if key == "backbone":  # data may not choose one, not even by a registered name
        return in_data or "/" in name or "\\" in name
    if key == "layout.reader":  # code that reads the copy given by --data-dir
        return in_data
    if key == "source" and not is_path(name):
        return name != DOWNLOAD
    try:
        resolve_inside(folder, name)
    except OutsideError:
        return True
    return False


def check_keys(table: Mapping[str, Any], where: str) -> None:
    """Check a declaration for unknown or missing keys, and for values of the wrong type."""
    kinds = {**annotations_of(DatasetSpec)}
    refuse_unknown(table, kinds.keys() - {*NOT_DECLARED, "kind", "names"}, where)
    # What these tables hold is checked below, and by whoever reads the text files.
    kinds |= dict.fromkeys((*SETS, "splits"), Mapping[str, Any])
    for key, value in table.items():
        if key not in LISTS and (wrong := mismatch(value, kinds[key], key)):
            raise UserError(f"{where}: {wrong}.")
    for key in ("name", "source"):
        if key not in table:
            raise UserError(f"{where}: the key {key!r} is missing.")
    layout, item = table.get("layout", {}), table.get("item", {})
    for name, count in table.get("splits", {}).items():
        if count != UNKNOWN_COUNT and (type(count) is not int or count < 1):
            raise UserError(
                f"{where}: splits.{name} must be a number of images or"
                f' "{UNKNOWN_COUNT}", got {quoted(count)}.'
            )
    if table.get("items") and not {"images", "texts"} <= item.keys():
        raise UserError(f"{where}: items = true requires a table [item] with images and texts.")
    if table.get("items") and len({"label", "pairing"} & item.keys()) != 1:
        raise UserError(
            f"{where}, [item]: the right answer is stated by either 'label' or 'pairing'."
        )
    if "table" in layout and not set(TABLE_KEYS) <= layout.keys():
        missing = sorted(set(TABLE_KEYS) - layout.keys())
        raise UserError(f"{where}, [layout]: a table also requires {', '.join(missing)}.")
    if ("reader" in layout) != ("marker" in layout):
        raise UserError(f"{where}, [layout]: reader and marker require each other.")


def refuse_unknown(table: Mapping[str, Any], keys: Collection[str], where: str) -> None:
    """Raise UserError for a key of a TOML table that is not in `keys`, with close matches."""
    if unknown := [key for key in table if key not in keys]:
        raise UserError(f"{where}: {unknown_key(unknown[0], keys)}.")


def check_texts(table: Mapping[str, Any], where: str) -> None:
    """Check texts that would fail later, such as templates without a placeholder.

    In `table`, text files have been replaced by their lines.
    """
    templates = _templates(table, where)
    phrases = [(f"phrases.{name}", phrase) for name, phrase in table.get("phrases", {}).items()]
    lists = [(key, text) for key in LISTS for text in table.get(key, ())]
    labels = [(f"labels.{key}", text) for key, lines in table["labels"].items() for text in lines]
    for key, text in (*templates, *phrases, *lists, *labels):
        if has_control(text):
            raise UserError(f"{where}: {key} has control characters in {quoted(text)}.")
    _check_classes(table, where)
    for key, template in templates:
        if PLACEHOLDER not in template:
            raise UserError(f"{where}: {key} {quoted(template)} has no {PLACEHOLDER}.")
    for key, phrase in phrases:
        if not phrase.strip():
            raise UserError(f"{where}: {key} is empty.")
    _check_names(table, where)
    for name, value in table.get("checksums", {}).items():
        if not re.fullmatch(r"md5:[0-9a-f]{32}|sha256:\w{64}", value):
            raise UserError(
                f"{where}: checksums.{name} must be md5:… or sha256:… in hex digits, got"
                f" {quoted(value)}."
            )


def _templates(table: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """Return the declared templates, each with its key."""
    templates = [("template", table.get("template", PLACEHOLDER))]
    for key, lines in table["templates"].items():
        if not lines:
            raise UserError(f"{where}: templates.{key} is empty.")
        templates += [(f"templates.{key}", line) for line in lines]
    return templates


def _check_classes(table: Mapping[str, Any], where: str) -> None:
    """Refuse fewer than two classes, or two that differ in case and spaces only."""
    classes = table.get("classes", ())
    seen: dict[str, str] = {}
    for name in classes:
        spelling = " ".join(name.casefold().split())
        if spelling in seen:
            raise UserError(f"{where}: the classes {seen[spelling]!r} and {name!r} are the same.")
        seen[spelling] = name
    if "classes" in table and len(classes) < 2:
        raise UserError(f"{where}: expected at least two classes, got {len(classes)}.")


def _check_names(table: Mapping[str, Any], where: str) -> None:
    """Refuse tables that name a class or a split which the declaration does not list."""
    of_splits = dict.fromkeys(("split_names", "within", "duplicates"), "splits")
    for key, plural in {"phrases": "classes", **of_splits}.items():
        names = table.get(plural, ())
        if table.get(key) and plural not in table:
            raise UserError(f"{where}: {key} requires {plural}, a list in the same file.")
        for name in table.get(key, {}):
            if name not in names:
                raise UserError(
                    f"{where}: {key} has {name!r}, which is not one of the {plural}."
                    f"{did_you_mean(name, names)}"
                )
