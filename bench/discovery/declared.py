"""Datasets declared in TOML: the file becomes the fields of a `DatasetSpec`.

A plugin package may hold such files and nothing else but the line that registers them:
`register_toml(register, __name__)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bench.contracts.specs import DatasetSpec
from bench.discovery.places import (
    LISTS,
    UNKNOWN_COUNT,
    check_places,
    check_tables,
    check_texts,
    is_path,
    refuse_unknown,
)
from bench.errors import UserError, quoted
from bench.machine.files import read_text
from bench.machine.toml import read_toml

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
_FLAGS = ("unverified", "items", "leave_out_others")
_NUMBERS = ("version", "border")
KEYS = (*_TEXT, *_MORE_TEXT, *_TABLES, *LISTS, *_FLAGS, *_NUMBERS)
MOST_LETTERS = 100  # of a name, which is part of a folder's
PROTOCOL_KEYS = ("name", "summary", "version", "source", "metric", "published", "images")
PROTOCOL_TABLES = ("differs", "settings")
COLLECTION_KEYS = ("summary", "datasets")


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
    check_tables(said, where)
    if in_data is not None and isinstance(folder, Path):
        check_places(said, where, folder, in_data)
    for key in LISTS:
        if key in said:
            said[key] = _lines(said[key], key, where, folder)
    said["splits"] = {
        n: None if c == UNKNOWN_COUNT else c for n, c in said.get("splits", {}).items()
    }
    if said["splits"]:
        usual = (name for name in ("test", "validation", "train") if name in said["splits"])
        said.setdefault("split", next(usual, next(iter(said["splits"]))))
    for table in ("templates", "labels"):
        sets = said.get(table, {})
        said[table] = {n: _lines(v, f"{table}.{n}", where, folder) for n, v in sets.items()}
    said["source"] = _source(said["source"], folder)
    check_texts(said, where)
    return said


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


def register_protocols(register: Callable[..., None], package: str, folder: str) -> None:
    """Register the protocols that the `.toml` files of a package's folder declare, one per file.

    Raises:
        UserError: a file is no declaration of a protocol.
    """
    place = files(package).joinpath(folder)
    for file in sorted(place.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        said = read_toml(file)
        refuse_unknown(said, (*PROTOCOL_KEYS, *PROTOCOL_TABLES), str(file))
        if "name" not in said:
            raise UserError(f"{file}: the key 'name' is missing.")
        said["differs"] = tuple(said.get("differs", ()))
        register(**said)


def register_collections(register: Callable[..., None], package: str, name: str) -> None:
    """Register the collections that a TOML file of a package declares, one per table.

    Raises:
        UserError: the file is no declaration of collections.
    """
    file = files(package).joinpath(name)
    for collection, said in read_toml(file).items():
        if not isinstance(said, Mapping):
            raise UserError(f"{file}: {collection} is no table.")
        refuse_unknown(said, COLLECTION_KEYS, f"{file}, [{collection}]")
        fields = {**said, "datasets": tuple(said.get("datasets", ()))}
        register(collection, **fields)
