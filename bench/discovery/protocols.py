"""Collections and protocols declared in TOML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files

from bench.discovery.declared import refuse_unknown
from bench.errors import UserError
from bench.machine.toml import read_toml

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
