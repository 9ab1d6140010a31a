"""Find installed plugins by their entry points, including those whose metadata is unreadable."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PathDistribution, distributions
from pathlib import Path

from bench.discovery.guard import one_line

GROUP = "bench"
OWN_DISTRIBUTION = "diffusion-classifier-bench"
# Which plugins are loaded, and whether one may fail; other processes of a run need the same.
PLUGIN_VARIABLES = ("BENCH_LOAD_PLUGINS", "BENCH_BLOCK_PLUGINS", "BENCH_STRICT_PLUGINS")


@dataclass
class Plugin:
    """One entry point, or one distribution whose entry points cannot be read.

    `module` is the entry point's value, empty if it cannot be read. Loading sets `registered`, the
    names of each kind, such as `dataset`, or else `error`, the reason why it failed.
    """

    name: str
    distribution: str
    version: str
    module: str
    registered: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None

    @property
    def builtin(self) -> bool:
        """Whether the toolkit's own distribution has it."""
        return self.distribution == OWN_DISTRIBUTION

    @property
    def label(self) -> str:
        """How messages refer to it."""
        return f"plugin {self.name!r} of {self.distribution}"


def find_plugins() -> list[Plugin]:
    """Return the installed plugins that are enabled, the toolkit's own first.

    The variable `BENCH_LOAD_PLUGINS` names the plugins to load besides the toolkit's own: all if it
    is unset, none if it is empty, otherwise those of a comma-separated list. Those of
    `BENCH_BLOCK_PLUGINS` are left out. Both take names of plugins and of distributions.
    """
    plugins: dict[tuple[str, str], Plugin] = {}
    for distribution in distributions():
        for plugin in _plugins_of(distribution):
            # The first on the path wins, as for imports.
            plugins.setdefault((plugin.distribution, plugin.name), plugin)
    enabled = filter(_is_enabled, plugins.values())
    return sorted(enabled, key=lambda p: (0 if p.builtin else 1, p.distribution, p.name))


def _plugins_of(distribution: Distribution) -> Iterator[Plugin]:
    try:
        entry_points = [point for point in distribution.entry_points if point.group == GROUP]
    except Exception as error:  # such as a file of the wrong encoding
        name = _name_of(distribution)
        if _has_our_group(distribution):
            reason = f"its entry points cannot be read: {one_line(error)}"
            yield Plugin(name, name, "", "", error=reason)
        return
    for point in entry_points:
        name = _name_of(distribution)
        try:
            yield Plugin(point.name, name, distribution.version, point.value)
        except Exception as error:
            reason = f"its METADATA cannot be read: {one_line(error)}"
            yield Plugin(point.name, name, "", "", error=reason)


def _name_of(distribution: Distribution) -> str:
    """Return the distribution's name, or that of its folder if its name cannot be read."""
    with suppress(Exception):
        if name := distribution.name:
            return name
    return Path(str(distribution._path)).stem if isinstance(distribution, PathDistribution) else "?"


def _has_our_group(distribution: Distribution) -> bool:
    """Return whether the entry points include ours; True if the file cannot even be decoded."""
    try:
        return f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or "")
    except Exception:
        return True


def _is_enabled(plugin: Plugin) -> bool:
    names = {plugin.name, plugin.distribution}
    if names & _names_in("BENCH_BLOCK_PLUGINS"):
        return False
    if plugin.builtin or "BENCH_LOAD_PLUGINS" not in os.environ:
        return True
    return bool(names & _names_in("BENCH_LOAD_PLUGINS"))


def _names_in(variable: str) -> set[str]:
    return {item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()}
