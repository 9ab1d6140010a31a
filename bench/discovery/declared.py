"""Datasets declared in TOML: the file becomes the fields of a `DatasetSpec`.

A plugin package may hold such files and nothing else but the line that registers them:
`register_toml(register, __name__)`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean, quoted

LAYOUT_KEYS = ("root", "lists", "line", "images", "first_label", "reader", "marker", "splits")
TABLE_KEYS = ("table", "file_column", "label_column", "split_column", "split_values")
ITEM_KEYS = ("file", "files", "folder", "images", "texts", "label", "pairing", "group", "id", "box")
COLUMN_KEYS = ("image", "label", "id")
PLACEHOLDER = "{class}"
DOWNLOAD = "download"  # the source of a dataset that is only read from its original download
UNKNOWN = "unknown"  # the number of images of a split
_TEXT = ("name", "summary", "template", "source", "split", "backbone", "homepage")
_MORE_TEXT = ("licence", "citation", "box")
_TABLES = (
    "item",
    "splits",
    "split_names",
    "columns",
    "layout",
    "templates",
    "phrases",
    "checksums",
)
_LISTS = ("classes", "found", "groups")
KEYS = (*_TEXT, *_MORE_TEXT, *_TABLES, *_LISTS, "version", "unverified", "items")
_SCHEME = re.compile(r"[a-z][a-z0-9_-]+:(?!//)")


def register_toml(register: Callable[..., None], package: str, folder: str = "") -> None:
    """Register every dataset that a `.toml` file of a package declares.

    Args:
        register: what the hook `register_datasets` was given.
        package: the package's name; in its own module, `__name__`.
        folder: a folder in it; empty: the package itself.

    Raises:
        UserError: a file is no declaration; it says which, and what would be right.
    """
    place = files(package).joinpath(folder) if folder else files(package)
    for file in sorted(place.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            register(**read_fields(file, place))


def load_spec(path: Path) -> DatasetSpec:
    """Return the dataset that a user's file declares.

    Raises:
        UserError: it cannot be read, or is no declaration.
    """
    if not path.is_file():
        raise UserError(f"There is no file {quoted(str(path))}.")
    try:
        return DatasetSpec(**read_fields(path, path.absolute().parent), owner=str(path))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}.") from None


def read_fields(file: Traversable, folder: Traversable) -> dict[str, Any]:
    """Return what a file declares, as fields of `DatasetSpec`.

    Args:
        file: the TOML file.
        folder: where the files that it names lie.

    Raises:
        UserError: it is not TOML, lacks a name or a source, or has an unknown or wrong key.
    """
    try:
        said = tomllib.loads(file.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a TOML file: {error}.") from None
    where = str(file)
    refuse_unknown(said, KEYS, where)
    for key in ("name", "source"):
        if key not in said:
            raise UserError(f"{where}: the key {key!r} is missing.")
    for keys, kind, word in (
        ((*_TEXT, *_MORE_TEXT), str, "text"),
        (_TABLES, dict, "a table"),
        (("unverified", "items"), bool, "true or false"),
        (("version",), int, "a whole number"),
    ):
        for key in keys:
            if key in said and type(said[key]) is not kind:
                raise UserError(f"{where}: {key} = {quoted(said[key])} is not {word}.")
    refuse_unknown(said.get("layout", {}), (*LAYOUT_KEYS, *TABLE_KEYS), f"{where}, [layout]")
    refuse_unknown(said.get("item", {}), ITEM_KEYS, f"{where}, [item]")
    for key in ("images", "texts") if said.get("items") else ():
        if not isinstance(said.get("item", {}).get(key), list):
            raise UserError(f"{where}, [item]: {key} must be a list of fields.")
    refuse_unknown(said.get("columns", {}), COLUMN_KEYS, f"{where}, [columns]")
    for key in _LISTS:
        if key in said:
            said[key] = _lines(said[key], key, where, folder)
    said["splits"] = {n: None if c == UNKNOWN else c for n, c in said.get("splits", {}).items()}
    sets = said.get("templates", {})
    said["templates"] = {n: _lines(v, f"templates.{n}", where, folder) for n, v in sets.items()}
    said["source"] = _source(said["source"], folder)
    _check(said, where)
    return said


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


def _lines(value: Any, key: str, where: str, folder: Traversable) -> tuple[str, ...]:
    """Return a list of texts: as written, or the lines of the text file that is named."""
    if isinstance(value, str):
        try:
            text = folder.joinpath(value).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: {key} = {quoted(value)} cannot be read: {error}.") from None
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{where}: {key} must be a list of texts, or the name of a text file.")
    return tuple(value)


def _source(source: str, folder: Traversable) -> str:
    """Return the source; a path, which leads from the file's folder, as an absolute one."""
    if source == DOWNLOAD or _SCHEME.match(source) or not isinstance(folder, Path):
        return source
    return str(Path(folder, source).absolute())


def _check(said: Mapping[str, Any], where: str) -> None:
    """Refuse what would be found late: phrases of no class, templates without a class."""
    classes = said.get("classes")
    for name in said.get("phrases", {}):
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
