"""Collections and protocols declared in TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from bench.discovery.declared import refuse_unknown
from bench.errors import UserError

PROTOCOL_KEYS = ("name", "summary", "version", "source", "metric", "published", "images")
PROTOCOL_TABLES = ("differs", "settings")
COLLECTION_KEYS = ("summary", "datasets")


def register_protocols(register: Callable[..., None], package: str, folder: str) -> None:
    """Register the protocols that the `.toml` files of a package's folder declare, one per file.

    Raises:
        UserError: a file is no declaration of a protocol.
    """
    place = files(package).joinpath(folder)
    for file in sorted(place.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        said = _read(file)
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
    for collection, said in _read(file).items():
        if not isinstance(said, Mapping):
            raise UserError(f"{file}: {collection} is no table.")
        refuse_unknown(said, COLLECTION_KEYS, f"{file}, [{collection}]")
        fields = {**said, "datasets": tuple(said.get("datasets", ()))}
        register(collection, **fields)


def _read(file: Any) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a TOML file: {error}.") from None
