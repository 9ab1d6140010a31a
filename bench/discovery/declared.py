"""Datasets declared in TOML: the file becomes the fields of a `DatasetSpec`.

A plugin package may hold such files and nothing else but the line that registers them:
`register_toml(register, __name__)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bench.contracts.specs import DatasetSpec
from bench.discovery.places import check_places, is_path
from bench.errors import UserError, did_you_mean, quoted
from bench.machine.characters import has_control
from bench.machine.files import read_text
from bench.machine.toml import read_toml

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
    "labels",
)
_LISTS = ("classes", "found", "groups")
_FLAGS = ("unverified", "items", "leave_out_others")
_NUMBERS = ("version", "border")
KEYS = (*_TEXT, *_MORE_TEXT, *_TABLES, *_LISTS, *_FLAGS, *_NUMBERS)
MOST_LETTERS = 100  # of a name, which is part of a folder's


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
            register(**declared_fields(read_toml(file), str(file), place))


def load_spec(path: Path, in_data: bool = False) -> DatasetSpec:
    """Return the dataset that a file declares.

    Args:
        path: the file. A declaration that the user names may name files and weights anywhere, which
            a warning lists.
        in_data: whether it was found in a data folder. Then all that it names must lie in that
            folder, and it may name neither a source with a network nor a backbone.

    Raises:
        UserError: it cannot be read, is no declaration, or leads out of its data folder.
    """
    if path.is_dir():
        raise UserError(f"{quoted(str(path))} is a folder, and no TOML file.")
    if not path.is_file():
        raise UserError(f"There is no file {quoted(str(path))}.")
    try:
        folder = path.absolute().parent
        fields = declared_fields(read_toml(path), str(path), folder, in_data)
        return DatasetSpec(**fields, owner=str(path))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: {error}.") from None


def declared_fields(
    said: dict[str, Any], where: str, folder: Traversable, in_data: bool | None = None
) -> dict[str, Any]:
    """Return what a TOML file declares, as fields of `DatasetSpec`.

    Args:
        said: the file's keys and values; changed.
        where: the file, for messages.
        folder: where the files that it names lie.
        in_data: as of `load_spec`; None: the file belongs to an installed package.

    Raises:
        UserError: a name or a source is missing, or a key is unknown or has a wrong value.
    """
    refuse_unknown(said, KEYS, where)
    for key in ("name", "source"):
        if key not in said:
            raise UserError(f"{where}: the key {key!r} is missing.")
    for keys, kind, word in (
        ((*_TEXT, *_MORE_TEXT), str, "text"),
        (_TABLES, dict, "a table"),
        (_FLAGS, bool, "true or false"),
        (_NUMBERS, int, "a whole number"),
    ):
        for key in keys:
            if key in said and type(said[key]) is not kind:
                raise UserError(f"{where}: {key} = {quoted(said[key])} is not {word}.")
    if len(said["name"]) > MOST_LETTERS:
        raise UserError(f"{where}: a name has at most {MOST_LETTERS} characters.")
    _check_tables(said, where)
    if in_data is not None and isinstance(folder, Path):
        check_places(said, where, folder, in_data)
    for key in _LISTS:
        if key in said:
            said[key] = _lines(said[key], key, where, folder)
    said["splits"] = {n: None if c == UNKNOWN else c for n, c in said.get("splits", {}).items()}
    if said["splits"]:
        usual = (name for name in ("test", "validation", "train") if name in said["splits"])
        said.setdefault("split", next(usual, next(iter(said["splits"]))))
    for table in ("templates", "labels"):
        sets = said.get(table, {})
        said[table] = {n: _lines(v, f"{table}.{n}", where, folder) for n, v in sets.items()}
    said["source"] = _source(said["source"], folder)
    _check(said, where)
    return said


def _check_tables(said: Mapping[str, Any], where: str) -> None:
    """Refuse unknown keys and wrong values of the tables."""
    for table, known in (("layout", LAYOUT_KEYS), ("item", ITEM_KEYS), ("columns", COLUMN_KEYS)):
        refuse_unknown(said.get(table, {}), known, f"{where}, [{table}]")
    for name in ("split_names", "columns", "phrases", "checksums"):
        _expect_texts(said.get(name, {}), f"{where}, [{name}]")
    for name, count in said.get("splits", {}).items():
        if count != UNKNOWN and (type(count) is not int or count < 1):
            raise UserError(
                f"{where}: splits.{name} = {quoted(count)}: a number of images is wanted, or"
                f' "{UNKNOWN}".'
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


def _lines(value: Any, key: str, where: str, folder: Traversable) -> tuple[str, ...]:
    """Return a list of texts: as written, or the lines of the text file that is named."""
    if isinstance(value, str):
        try:
            text = read_text(folder.joinpath(value))
        except (OSError, ValueError) as error:
            raise UserError(f"{where}: {key} = {quoted(value)} cannot be read: {error}.") from None
        value = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{where}: {key} must be a list of texts, or the name of a text file.")
    return tuple(value)


def _source(source: str, folder: Traversable) -> str:
    """Return the source; a path, which leads from the file's folder, as an absolute one."""
    if not (isinstance(folder, Path) and is_path(source)):
        return source
    return str(Path(folder, source).absolute())


def _check(said: Mapping[str, Any], where: str) -> None:
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
    texts += [(key, text) for key in _LISTS for text in said.get(key, ())]
    texts += [(f"phrases.{key}", text) for key, text in said.get("phrases", {}).items()]
    for table in ("templates", "labels"):
        texts += [(f"{table}.{key}", text) for key, lines in said[table].items() for text in lines]
    for key, text in texts:
        if has_control(text):
            raise UserError(f"{where}: {key} has control characters in {quoted(text)}.")
