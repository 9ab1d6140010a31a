"""Finding plugins: the entry points of what is installed, those that cannot be read included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path

from bench.discovery.guard import one_line

GROUP = "bench"
OWN_DISTRIBUTION = "diffusion-classifier-bench"


@dataclass
class Plugin:
    """One entry point, or one distribution whose entry points cannot be read."""

    name: str
    distribution: str
    version: str
    module: str = ""  # value of the entry point
    registered: list[str] = field(default_factory=list)
    error: str | None = None  # why it cannot be read or loaded

    @property
    def builtin(self) -> bool:
        """Whether it is part of the toolkit."""
        return self.distribution == OWN_DISTRIBUTION

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"plugin {self.name!r} of {self.distribution}"


def find() -> list[Plugin]:
    """Return the plugins to load, the toolkit's own first.

    `BENCH_LOAD_PLUGINS`: unset loads all, empty only the toolkit's own, a comma-separated list
    only those besides. `BENCH_BLOCK_PLUGINS` lists plugins to leave out. Both take names of
    plugins and of distributions.
    """
    plugins: dict[tuple[str, str], Plugin] = {}
    for distribution in distributions():
        for plugin in _plugins_of(distribution):
            # First on the path wins, as it does for imports.
            plugins.setdefault((plugin.distribution, plugin.name), plugin)
    order = sorted(plugins, key=lambda key: (key[0] != OWN_DISTRIBUTION, key))
    return [plugins[key] for key in order if _wanted(plugins[key])]


def _plugins_of(distribution: Distribution) -> Iterator[Plugin]:
    try:
        entry_points = [point for point in distribution.entry_points if point.group == GROUP]
    except Exception as error:  # a file of the wrong encoding or form
        name = _name_of(distribution)
        if _meant_for_us(distribution):
            problem = f"its entry points cannot be read: {one_line(error)}"
            yield Plugin(name, name, "", error=problem)
        return
    for point in entry_points:
        name = _name_of(distribution)
        try:
            yield Plugin(point.name, name, distribution.version, point.value)
        except Exception as error:
            problem = f"its METADATA cannot be read: {one_line(error)}"
            yield Plugin(point.name, name, "", error=problem)


def _name_of(distribution: Distribution) -> str:
    """Return the distribution's name, or its folder's if that cannot be read."""
    with suppress(Exception):
        if name := distribution.name:
            return name
    return Path(str(distribution._path)).stem if isinstance(distribution, PathDistribution) else "?"


def _meant_for_us(distribution: Distribution) -> bool:
    try:
        return f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
    except Exception:
        return True


def _wanted(plugin: Plugin) -> bool:
    names = {plugin.name, plugin.distribution}
    if names & _listed("BENCH_BLOCK_PLUGINS"):
        return False
    if plugin.builtin or "BENCH_LOAD_PLUGINS" not in os.environ:
        return True
    return bool(names & _listed("BENCH_LOAD_PLUGINS"))


def _listed(variable: str) -> set[str]:
    return {item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()}
