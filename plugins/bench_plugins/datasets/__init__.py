"""First-party datasets. Each loads a split as a `datasets.Dataset` with image and label columns."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from bench import hookimpl, register_toml
from bench.contracts.specs import COLUMN_PARAMETERS, Parameter
from bench.discovery import declared
from bench.machine.files import read_toml

_SOURCE = Parameter("", "what follows the colon")
_LABELS = Parameter(None, "a CSV or JSONL file of image files and their labels")
_PARAMETERS = {
    "folder": {"labels": _LABELS, **COLUMN_PARAMETERS},
    "hf": {**COLUMN_PARAMETERS, "source": _SOURCE},
    "torchvision": {"source": _SOURCE},
}
_READERS: dict[str, Any] = read_toml(files(__package__) / "readers.toml")
UCMERCED_PHRASES: dict[str, str] = _READERS["ucmerced"]["phrases"]


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Register the datasets."""
    for name, reader in _READERS.items():
        target = f"{__name__}.{reader['target']}"
        classes = tuple(reader.get("classes", reader.get("phrases", ()))) or None
        own = {"target": target, "classes": classes, "parameters": _PARAMETERS.get(name, {})}
        register(name, **{**reader, **own})
    register_toml(register, __name__, "declared")


@hookimpl
def register_collections(register: Callable[..., None]) -> None:
    """Register the collections."""
    declared.register_collections(register, __name__, "collections.toml")


@hookimpl
def register_studies(register: Callable[..., None]) -> None:
    """Register the published experiments on these datasets."""
    declared.register_studies(register, __name__, "studies")
