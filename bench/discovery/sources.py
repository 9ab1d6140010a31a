"""Hashes of the source code that a run's results depend on: the toolkit's and its plugins'."""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.loading import Plugins

SUFFIXES = (".py", ".toml")  # code, and declarations of datasets and models


def source_hashes(plugins: Plugins, owners: Iterable[str | None]) -> dict[str, str]:
    """Return distribution → hash of its sources, for the toolkit and `owners` except None.

    Two checkouts of the same version may compute a loss differently, so a version is not enough.
    """
    names = {OWN_DISTRIBUTION, *filter(None, owners)}
    return {name: _hash_packages(tuple(sorted(_packages(plugins, name)))) for name in sorted(names)}


def _packages(plugins: Plugins, distribution: str) -> set[str]:
    """Return the top-level modules that hold a distribution's entry points and targets."""
    places = {plugin.module for plugin in plugins.loaded if plugin.distribution == distribution}
    places |= {
        spec.target
        for registry in (plugins.datasets, plugins.backbones, plugins.strategies, plugins.views)
        for spec in registry
        if registry.owner(spec.name) == distribution
    }
    if distribution == OWN_DISTRIBUTION:
        places.add(__name__)  # `bench` itself
    return {re.split("[.:]", place)[0] for place in places} - {""}


@cache
def _hash_packages(packages: tuple[str, ...]) -> str:
    sources = hashlib.sha256()
    for package in packages:
        for name, file in sorted(_list_files(package)):
            content = file.read_bytes()
            sources.update(f"{package} {name} {len(content)}\n".encode() + content)
    return sources.hexdigest()[:16]


def _list_files(package: str) -> Iterable[tuple[str, Path]]:
    """Return the source files of a top-level module, each with its path relative to the module."""
    try:
        spec = find_spec(package)
    except ValueError:  # a module that was created in this process has no file
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return [(file.name, file)] if file.is_file() else []
    roots = map(Path, spec.submodule_search_locations)
    return [
        (file.relative_to(root).as_posix(), file)
        for root in roots
        for file in root.rglob("*")
        if file.suffix in SUFFIXES and file.is_file()
    ]
