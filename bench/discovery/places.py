"""The checks of a declaration: the types of its keys, and the files that it may name.

`bench run ./folder` takes a declaration that is found in the folder. Whoever made the data wrote
it, so it must not make the toolkit read other files of the machine or ask a network.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import BenchWarning, UserError, did_you_mean, quoted
from bench.machine.files import OutsideError, has_control, inside

DOWNLOAD = "download"  # the source of a dataset that is only read from its original download
_SCHEME = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")
TABLE_KEYS = ("table", "file_column", "label_column", "split_column", "split_values")
LAYOUT_KEYS = (
    *TABLE_KEYS,
    "root",
    "lists",
    "line",
    "images",
    "first_label",
    "reader",
    "marker",
    "splits",
)
ITEM_KEYS = ("file", "files", "folder", "images", "texts", "label", "pairing", "group", "id", "box")
COLUMN_KEYS = ("image", "label", "id")
PLACEHOLDER = "{class}"
UNKNOWN_COUNT = "unknown"  # the number of images of a split
LISTS = ("classes", "found", "groups")


def is_path(source: str) -> bool:
    """Tell whether a source is a file or folder, and not `hf:owner/name` or the like."""
    return source != DOWNLOAD and not _SCHEME.match(source)


def check_places(said: Mapping[str, Any], where: str, folder: Path, in_data: bool) -> None:
    """Refuse what leads out of a data folder; warn of it where the user named the declaration.

    Args:
        said: the declaration, its values of the right types.
        where: its file, for messages.
        folder: its folder, from which its names lead.
        in_data: whether it was found in a data folder.

    Raises:
        UserError: it was, and it names another place.
    """
    elsewhere = [
        f"{key} = {quoted(name)}"
        for key, name in _names(said)
        if _leads_out(folder, key, name, in_data)
    ]
    if elsewhere and in_data:
        raise UserError(
            f"{where} was found with the data, and names what is not in its folder: {elsewhere[0]}."
            f" If you trust it, name the file itself: bench run {where}"
        )
    if elsewhere:
        warnings.warn(
            f"{where} names what is not in its folder: {', '.join(elsewhere)}.",
            BenchWarning,
            stacklevel=4,
        )


def _names(said: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key that names a source, weights or a text file, with the name."""
    layout = said.get("layout", {})
    texts = {key: said.get(key) for key in ("source", "backbone", "classes", "found", "groups")}
    texts["layout.reader"] = layout.get("reader")
    for table in ("templates", "labels"):
        texts |= {f"{table}.{key}": value for key, value in said.get(table, {}).items()}
    yield from ((key, name) for key, name in texts.items() if isinstance(name, str))


def _leads_out(folder: Path, key: str, name: str, in_data: bool) -> bool:
    if key == "backbone":  # one of the registered names is the user's choice as well
        return in_data or "/" in name or "\\" in name
    if key == "layout.reader":  # it reads the copy that --data-dir names
        return in_data
    if key == "source" and not is_path(name):
        return name != DOWNLOAD
    try:
        inside(folder, name)
    except OutsideError:
        return True
    return False


def check_tables(said: Mapping[str, Any], where: str) -> None:
    """Refuse unknown keys and wrong values of the tables."""
    for table, known in (("layout", LAYOUT_KEYS), ("item", ITEM_KEYS), ("columns", COLUMN_KEYS)):
        refuse_unknown(said.get(table, {}), known, f"{where}, [{table}]")
    for name in ("split_names", "columns", "phrases", "checksums"):
        _expect_texts(said.get(name, {}), f"{where}, [{name}]")
    for name, count in said.get("splits", {}).items():
        if count != UNKNOWN_COUNT and (type(count) is not int or count < 1):
            raise UserError(
                f"{where}: splits.{name} = {quoted(count)}: a number of images is wanted, or"
                f' "{UNKNOWN_COUNT}".'
            )
    for table, numbers, lists in (
        ("layout", ("first_label",), ()),
        ("item", ("label",), ("images", "texts", "box", "pairing")),
    ):
        for key, value in said.get(table, {}).items():
            at = f"{where}, [{table}]"
            if key in numbers:
                if type(value) is not int:
                    raise UserError(f"{at}: {key} = {quoted(value)} is not a whole number.")
            elif key in lists:
                of = int if key == "pairing" else str
                if (
                    type(value) is not list
                    or not value
                    or any(type(one) is not of for one in value)
                ):
                    word = "numbers" if of is int else "fields"
                    raise UserError(f"{at}: {key} must be a list of {word}.")
            elif key in ("lists", "splits", "split_values", "files"):
                if type(value) is not dict:
                    raise UserError(f"{at}: {key} = {quoted(value)} is not a table.")
                _expect_texts(value, f"{at}, {key}")
            else:
                _expect_texts({key: value}, at)
    item = said.get("item", {})
    if said.get("items") and not {"images", "texts"} <= item.keys():
        raise UserError(f"{where}: items = true needs a table [item] with images and texts.")
    if ("table" in (layout := said.get("layout", {}))) and not set(TABLE_KEYS) <= layout.keys():
        missing = sorted(set(TABLE_KEYS) - layout.keys())
        raise UserError(f"{where}, [layout]: a table needs {', '.join(missing)} too.")
    if ("reader" in layout) != ("marker" in layout):
        raise UserError(f"{where}, [layout]: reader and marker go together.")


def _expect_texts(table: Mapping[str, Any], at: str) -> None:
    for key, value in table.items():
        if type(value) is not str:
            raise UserError(f"{at}: {key} = {quoted(value)} is not text.")


def refuse_unknown(table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse a key that a TOML file may not have.

    Raises:
        UserError: there is one; it says which one was meant, perhaps.
    """
    known = tuple(known)
    for key in table:
        if key not in known:
            raise UserError(
                f"{where}: unknown key {key!r}.{did_you_mean(key, known)} The keys:"
                f" {', '.join(sorted(known))}."
            )


def check_texts(said: Mapping[str, Any], where: str) -> None:
    """Refuse what would be found late: phrases of no class, templates without a class."""
    _refuse_control(said, where)
    classes = said.get("classes")
    if classes is not None:
        first: dict[str, str] = {}
        for name in classes:
            other = first.setdefault(" ".join(name.casefold().split()), name)
            if other is not name:
                raise UserError(f"{where}: the classes {other!r} and {name!r} are the same.")
        if len(classes) < 2:
            raise UserError(f"{where}: classes has {len(classes)}; at least two are wanted.")
    for key, texts in said["templates"].items():
        if not texts:
            raise UserError(f"{where}: templates.{key} holds no templates.")
    for name, phrase in said.get("phrases", {}).items():
        if not phrase.strip():
            raise UserError(f"{where}: phrases.{name} is empty.")
        if classes is None or name not in classes:
            raise UserError(
                f"{where}: phrases has {name!r}, which is none of the classes."
                f"{did_you_mean(name, classes or ())}"
            )
    sets = [
        (f"templates.{key}", text) for key, texts in said["templates"].items() for text in texts
    ]
    for key, template in [("template", said.get("template", PLACEHOLDER)), *sets]:
        if PLACEHOLDER not in template:
            raise UserError(f"{where}: {key} {quoted(template)} has no {PLACEHOLDER}.")
    splits = said.get("splits", {})
    for name in said.get("split_names", {}):
        if name not in splits:
            raise UserError(
                f"{where}: split_names has {name!r}, which is none of the splits."
                f"{did_you_mean(name, splits)}"
            )
    for name, value in said.get("checksums", {}).items():
        if not isinstance(value, str) or not re.fullmatch(r"md5:[0-9a-f]{32}|sha256:\w{64}", value):
            raise UserError(f"{where}: checksums.{name}: write md5:… or sha256:… in hex digits.")


def _refuse_control(said: Mapping[str, Any], where: str) -> None:
    """Refuse control characters in every text that may enter a prompt."""
    texts = [("template", said.get("template", ""))]
    texts += [(key, text) for key in LISTS for text in said.get(key, ())]
    texts += [(f"phrases.{key}", text) for key, text in said.get("phrases", {}).items()]
    for table in ("templates", "labels"):
        texts += [(f"{table}.{key}", text) for key, lines in said[table].items() for text in lines]
    for key, text in texts:
        if has_control(text):
            raise UserError(f"{where}: {key} has control characters in {quoted(text)}.")
