"""The checks of a declaration: the types of its keys, and the files that it may name.

`bench run ./folder` takes a declaration that is found in the folder. Whoever made the data wrote
it, so it must not make the toolkit read other files of the machine or ask a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import UserError, did_you_mean, quoted, warn_user
from bench.machine.files import OutsideError, has_control, inside

PLACEHOLDER = "{class}"
DOWNLOAD = "download"  # the source of a dataset that is only read from its original download
UNKNOWN_COUNT = "unknown"  # the number of images of a split
LISTS = ("classes", "found", "groups")  # lists, or names of text files

# The types of the keys: [str] is a list of texts; None is checked where it is read.
Kinds = Mapping[str, Any]
_TABLES = ("splits", "split_names", "phrases", "checksums", "templates", "labels")
KEYS: Kinds = {
    **dict.fromkeys(("name", "summary", "template", "source", "split", "backbone"), str),
    **dict.fromkeys(("homepage", "licence", "citation", "box"), str),
    **dict.fromkeys(("item", "columns", "layout", *_TABLES), dict),
    **dict.fromkeys(LISTS, None),
    **dict.fromkeys(("unverified", "items", "leave_out_others"), bool),
    **dict.fromkeys(("version", "border"), int),
}
TABLE_KEYS = ("table", "file_column", "label_column", "split_column", "split_values")
LAYOUT_KEYS: Kinds = {
    **dict.fromkeys(("root", "line", "images", "reader", "marker", *TABLE_KEYS), str),
    **dict.fromkeys(("lists", "splits", "split_values"), dict),
    "first_label": int,
}
ITEM_KEYS: Kinds = {
    **dict.fromkeys(("file", "folder", "group", "id"), str),
    **{key: [str] for key in ("images", "texts", "box")},
    **{"files": dict, "label": int, "pairing": [int]},
}
COLUMN_KEYS: Kinds = dict.fromkeys(("image", "label", "id"), str)
_WORDS = {str: "text", dict: "a table", bool: "true or false", int: "a whole number"}
_SCHEME = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")


def is_path(source: str) -> bool:
    """Return whether a source is a file or folder, and not `hf:owner/name` or the like."""
    return source != DOWNLOAD and not _SCHEME.match(source)


def check_places(table: Mapping[str, Any], where: str, folder: Path, in_data: bool) -> None:
    """Refuse a declaration `in_data` that leads out of its folder (UserError); warn of others.

    Its values have the right types; `where` is its file, for messages.
    """
    elsewhere = [
        f"{key} = {quoted(name)}"
        for key, name in _names(table)
        if _leads_out(folder, key, name, in_data)
    ]
    if elsewhere and in_data:
        raise UserError(
            f"{where} was found with the data, and names what is not in its folder: {elsewhere[0]}."
            f" If you trust it, name the file itself: bench run {where}"
        )
    if elsewhere:
        warn_user(f"{where} names what is not in its folder: {', '.join(elsewhere)}.")


def _names(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key that names a source, weights or a text file, with the name."""
    names = {key: table.get(key) for key in ("source", "backbone", *LISTS)}
    names["layout.reader"] = table.get("layout", {}).get("reader")
    for sets in ("templates", "labels"):
        names |= {f"{sets}.{key}": value for key, value in table.get(sets, {}).items()}
    yield from ((key, name) for key, name in names.items() if isinstance(name, str))


def _leads_out(folder: Path, key: str, name: str, in_data: bool) -> bool:
    if key == "backbone":  # a registered name is the user's choice as well
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


def check_keys(table: Mapping[str, Any], where: str) -> None:
    """Refuse a declaration with unknown or missing keys, or values of other types (UserError)."""
    check_types(table, KEYS, where)
    for key in ("name", "source"):
        if key not in table:
            raise UserError(f"{where}: the key {key!r} is missing.")
    layout, item = table.get("layout", {}), table.get("item", {})
    check_types(layout, LAYOUT_KEYS, f"{where}, [layout]")
    check_types(item, ITEM_KEYS, f"{where}, [item]")
    check_types(table.get("columns", {}), COLUMN_KEYS, f"{where}, [columns]")
    texts = {f"[{name}]": table.get(name, {}) for name in ("split_names", "phrases", "checksums")}
    for name in ("lists", "splits", "split_values"):
        texts[f"[layout], {name}"] = layout.get(name, {})
    texts["[item], files"] = item.get("files", {})
    for name, values in texts.items():
        check_types(values, dict.fromkeys(values, str), f"{where}, {name}")
    for name, count in table.get("splits", {}).items():
        if count != UNKNOWN_COUNT and (type(count) is not int or count < 1):
            raise UserError(
                f"{where}: splits.{name} = {quoted(count)}: expected a number of images, or"
                f' "{UNKNOWN_COUNT}".'
            )
    if table.get("items") and not {"images", "texts"} <= item.keys():
        raise UserError(f"{where}: items = true needs a table [item] with images and texts.")
    if "table" in layout and not set(TABLE_KEYS) <= layout.keys():
        missing = sorted(set(TABLE_KEYS) - layout.keys())
        raise UserError(f"{where}, [layout]: a table needs {', '.join(missing)} too.")
    if ("reader" in layout) != ("marker" in layout):
        raise UserError(f"{where}, [layout]: reader and marker go together.")


def check_types(table: Mapping[str, Any], kinds: Kinds, at: str) -> None:
    """Refuse unknown keys and values of other types; `UserError`: the first of them."""
    refuse_unknown(table, kinds, at)
    for key, value in table.items():
        kind = kinds[key]
        if isinstance(kind, list):
            if type(value) is not list or {type(entry) for entry in value} != set(kind):
                word = "numbers" if kind == [int] else "fields"
                raise UserError(f"{at}: {key} must be a list of {word}.")
        elif kind is not None and type(value) is not kind:
            raise UserError(f"{at}: {key} = {quoted(value)} is not {_WORDS[kind]}.")


def refuse_unknown(table: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Refuse a key that a TOML file may not have; `UserError`: the key, with the closest ones."""
    keys = tuple(keys)
    for key in table:
        if key not in keys:
            raise UserError(
                f"{where}: unknown key {key!r}.{did_you_mean(key, keys)} The keys:"
                f" {', '.join(sorted(keys))}."
            )


def check_texts(table: Mapping[str, Any], where: str) -> None:
    """Refuse what would fail late: phrases of no class, templates without a class (UserError)."""
    templates = [("template", table.get("template", PLACEHOLDER))]
    for key, lines in table["templates"].items():
        if not lines:
            raise UserError(f"{where}: templates.{key} holds no templates.")
        templates += [(f"templates.{key}", line) for line in lines]
    phrases = table.get("phrases", {})
    texts = [*templates, *((f"phrases.{name}", phrase) for name, phrase in phrases.items())]
    texts += [(key, text) for key in LISTS for text in table.get(key, ())]
    texts += [(f"labels.{key}", text) for key, lines in table["labels"].items() for text in lines]
    for key, text in texts:
        if has_control(text):
            raise UserError(f"{where}: {key} has control characters in {quoted(text)}.")
    classes = table.get("classes", ())
    first: dict[str, str] = {}
    for name in classes:
        other = first.setdefault(" ".join(name.casefold().split()), name)
        if other is not name:
            raise UserError(f"{where}: the classes {other!r} and {name!r} are the same.")
    if "classes" in table and len(classes) < 2:
        raise UserError(f"{where}: classes has {len(classes)}; expected at least two.")
    for key, template in templates:
        if PLACEHOLDER not in template:
            raise UserError(f"{where}: {key} {quoted(template)} has no {PLACEHOLDER}.")
    for name, phrase in phrases.items():
        if not phrase.strip():
            raise UserError(f"{where}: phrases.{name} is empty.")
    for key, kind, names in (
        ("phrases", "classes", classes),
        ("split_names", "splits", table.get("splits", {})),
    ):
        for name in table.get(key, {}):
            if name not in names:
                raise UserError(
                    f"{where}: {key} has {name!r}, which is not one of the {kind}."
                    f"{did_you_mean(name, names)}"
                )
    for name, value in table.get("checksums", {}).items():
        if not re.fullmatch(r"md5:[0-9a-f]{32}|sha256:\w{64}", value):
            raise UserError(f"{where}: checksums.{name}: write md5:… or sha256:… in hex digits.")
