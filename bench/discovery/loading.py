"""Plugin discovery: one plugin at a time, and a plugin that fails harms nobody else.

`BENCH_LOAD_PLUGINS`: unset loads all, empty only the toolkit's own, a comma-separated list only
those besides. `BENCH_BLOCK_PLUGINS` lists plugins to leave out. `BENCH_STRICT_PLUGINS=1` turns a
plugin's failure into the command's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import click
import pluggy

from bench.contracts import hooks as hookspecs
from bench.contracts.specs import BackboneSpec, DatasetSpec, Spec, StrategySpec
from bench.discovery.registry import Registry
from bench.errors import UserError

GROUP = "bench"
OWN_DISTRIBUTION = "diffusion-classifier-bench"


@dataclass
class Plugin:
    """One entry point and what became of it."""

    name: str
    distribution: str
    version: str
    module: str
    registered: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def builtin(self) -> bool:
        """Whether it comes with the toolkit."""
        return self.distribution == OWN_DISTRIBUTION


class Plugins:
    """Everything that is installed: the three registries, the commands and the hooks."""

    def __init__(self) -> None:
        self.manager = _new_manager()
        self.datasets = Registry(DatasetSpec, "datasets")
        self.backbones = Registry(BackboneSpec, "backbones")
        self.strategies = Registry(StrategySpec, "strategies")
        self.commands: dict[str, click.Command] = {}
        self.loaded: list[Plugin] = []

    def versions(self) -> dict[str, str]:
        """Return distribution → version of the plugins that loaded."""
        return {p.distribution: p.version for p in self.loaded if p.error is None}

    def load(self, entry_point: EntryPoint, distribution: Distribution) -> None:
        """Load one plugin whole, or leave no trace of it but its error."""
        plugin = Plugin(
            name=entry_point.name,
            distribution=distribution.name,
            version=distribution.version,
            module=entry_point.value,
        )
        self.loaded.append(plugin)
        staged: list[tuple[Registry[Any], Spec]] = []
        cli = click.Group()
        try:
            module = entry_point.load()
            # A manager of its own: hooks of this plugin alone, and misspelt hooks are its error.
            manager = _new_manager()
            manager.register(module)
            manager.check_pending()
            manager.hook.register_datasets(register=_stage(self.datasets, staged))
            manager.hook.register_backbones(register=_stage(self.backbones, staged))
            manager.hook.register_strategies(register=_stage(self.strategies, staged))
            manager.hook.register_commands(cli=cli)
            self._refuse_clashes(plugin, staged, cli)
        except Exception as error:  # whatever a plugin raises is its own failure, not ours
            if os.environ.get("BENCH_STRICT_PLUGINS") == "1":
                raise
            self._fail(plugin, error, staged)
            return
        self.manager.register(module, name=f"{plugin.distribution}:{plugin.name}")
        for registry, spec in staged:
            registry.add(spec, owner=plugin.distribution)
        self.commands.update(cli.commands)
        plugin.registered = [f"{spec.kind} {spec.name}" for _, spec in staged]
        plugin.registered += [f"command {name}" for name in cli.commands]

    def _refuse_clashes(
        self, plugin: Plugin, staged: list[tuple[Registry[Any], Spec]], cli: click.Group
    ) -> None:
        for registry, spec in staged:
            owner = registry.owner(spec.name)
            if owner is not None:
                message = (
                    f"The {spec.kind} name {spec.name!r} is claimed by two distributions, {owner!r}"
                    f" and {plugin.distribution!r}. Uninstall one of them, or leave one out with"
                    f" BENCH_BLOCK_PLUGINS={plugin.distribution}."
                )
                registry.unusable[spec.name] = message
                raise UserError(message)
        for name in cli.commands:
            if name in self.commands:
                raise UserError(f"The command {name!r} is claimed by two plugins.")

    def _fail(
        self, plugin: Plugin, error: Exception, staged: list[tuple[Registry[Any], Spec]]
    ) -> None:
        plugin.error = (
            f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else (str(error))
        )
        message = f"plugin {plugin.name!r} ({plugin.distribution}): {plugin.error}"
        for registry in (self.datasets, self.backbones, self.strategies):
            registry.failures.append(message)
        for registry, spec in staged:
            if spec.name not in registry:
                registry.unusable[spec.name] = (
                    f"{spec.kind} {spec.name!r} cannot be used: {message}"
                )


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("bench")
    manager.add_hookspecs(hookspecs)
    return manager


def _stage(registry: Registry[Any], staged: list[tuple[Registry[Any], Spec]]) -> Any:
    def register(name: str, **fields: Any) -> None:
        if any(other is registry and spec.name == name for other, spec in staged):
            raise ValueError(f"{registry.kind.kind} {name!r} is registered twice")
        staged.append((registry, registry.kind(name=name, **fields)))

    return register


def _wanted(name: str, distribution: str) -> bool:
    def listed(variable: str) -> set[str]:
        return {item.strip() for item in os.environ.get(variable, "").split(",") if item.strip()}

    names = {name, distribution}
    if names & listed("BENCH_BLOCK_PLUGINS"):
        return False
    if distribution == OWN_DISTRIBUTION or "BENCH_LOAD_PLUGINS" not in os.environ:
        return True
    return bool(names & listed("BENCH_LOAD_PLUGINS"))


@cache
def load_plugins() -> Plugins:
    """Load every installed plugin once a process, the toolkit's own first."""
    found: dict[tuple[str, str], tuple[EntryPoint, Distribution]] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == GROUP:
                # First on the path wins, as it does for imports.
                found.setdefault((distribution.name, entry_point.name), (entry_point, distribution))
    plugins = Plugins()
    for key in sorted(found, key=lambda key: (key[0] != OWN_DISTRIBUTION, key)):
        entry_point, distribution = found[key]
        if _wanted(entry_point.name, distribution.name):
            plugins.load(entry_point, distribution)
    return plugins
