"""Load plugins one at a time, so that one that fails to load does not affect the others.

With `BENCH_STRICT_PLUGINS=1`, the command fails if a plugin does.
"""

import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint
from inspect import isfunction
from types import ModuleType
from typing import Any

import click
import pluggy

from bench.contracts import hooks as hookspecs
from bench.contracts.executor import ExecutorSpec
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.specs import (
    BackboneSpec,
    CollectionSpec,
    DatasetSpec,
    ErratumSpec,
    ExporterSpec,
    Spec,
    StrategySpec,
    StudySpec,
    ViewsSpec,
)
from bench.discovery.commands import own_commands
from bench.discovery.finding import GROUP, Plugin, find_plugins
from bench.discovery.guard import guard, stdout_to_stderr
from bench.discovery.registry import Registry
from bench.errors import BenchError, PluginError, UserError

Staged = list[tuple[Registry[Any], Spec]]  # registrations of a plugin that is being loaded


class Plugins:
    """The loaded plugins: their registrations, commands and hooks.

    `commands` are those of plugins by name. `loaded` has all plugins, those that failed included.
    """

    def __init__(self) -> None:
        self.manager = _new_manager()
        self.datasets = Registry(DatasetSpec, "datasets")
        self.backbones = Registry(BackboneSpec, "backbones")
        self.strategies = Registry(StrategySpec, "strategies")
        self.views = Registry(ViewsSpec, "views")
        self.metrics = Registry(MetricSpec, "metrics")
        self.exporters = Registry(ExporterSpec, "exporters")
        self.executors = Registry(ExecutorSpec, "executors")
        self.collections = Registry(CollectionSpec, "collections")
        self.studies = Registry(StudySpec, "studies")
        self.errata = Registry(ErratumSpec, "errata")
        self._registries = [part for part in vars(self).values() if isinstance(part, Registry)]
        self.commands: dict[str, click.Command] = {}
        self.loaded: list[Plugin] = []

    def versions(self) -> dict[str, str]:
        """Return distribution → version of the plugins that loaded successfully."""
        return {p.distribution: p.version for p in self.loaded if p.error is None}

    def load(self, plugin: Plugin) -> None:
        """Load one plugin completely, or set its `error` and register nothing of it.

        Raises BenchError if it fails and `BENCH_STRICT_PLUGINS` is 1.
        """
        self.loaded.append(plugin)
        staged: Staged = []
        cli = click.Group()
        try:
            self._stage_all(plugin, staged, cli)
        except BenchError as error:
            if os.environ.get("BENCH_STRICT_PLUGINS") == "1":
                raise
            self._fail(plugin, error, staged)
            return
        for registry, spec in staged:
            registry.add(spec, plugin.distribution)
            plugin.registered.setdefault(spec.kind, []).append(spec.name)
        self.commands.update(cli.commands)
        if cli.commands:
            plugin.registered["command"] = [*cli.commands]

    def _stage_all(self, plugin: Plugin, staged: Staged, cli: click.Group) -> None:
        """Fill `staged` and `cli` with what a plugin registers; raise BenchError if it fails."""
        module = self._import(plugin)
        hooks = _own_hooks(plugin, module)
        self._stage_specs(plugin, hooks, staged)
        _stage_commands(plugin, hooks, cli)
        self._refuse_clashes(plugin, staged, cli)
        with guard(plugin.label, "reading its hooks"):
            self.manager.register(module, name=plugin.label)

    def _import(self, plugin: Plugin) -> ModuleType:
        """Return the plugin's module, which no other plugin has."""
        if plugin.error is not None:
            raise PluginError(plugin.label, plugin.error)
        with guard(plugin.label, f"importing {plugin.module}"):
            module: ModuleType = EntryPoint(plugin.name, plugin.module, GROUP).load()
        if self.manager.is_registered(module):
            other = self.manager.get_name(module)
            message = f"its module {plugin.module} already belongs to {other}"
            raise PluginError(plugin.label, message)
        return module

    def _stage_specs(self, plugin: Plugin, hooks: pluggy.HookRelay, staged: Staged) -> None:
        for registry in self._registries:
            hook = f"register_{registry.listing}"
            with guard(plugin.label, f"{hook}()"):
                getattr(hooks, hook)(register=_stage(registry, staged, plugin))

    def _refuse_clashes(self, plugin: Plugin, staged: Staged, cli: click.Group) -> None:
        for registry, spec in staged:
            registry.refuse_clash(spec, plugin.distribution)
            default = registry.default()
            if default is not None and registry.is_default(spec):
                raise UserError(
                    f"Only one {spec.kind} can have default=True, but {spec.name!r} and"
                    f" {default.name!r} of {registry.owner(default.name)} both do."
                )
        for name in cli.commands:
            if name in own_commands():
                raise UserError(f"The command {name!r} is reserved for the toolkit.")
            if name in self.commands:
                raise UserError(f"The command {name!r} is already added by another plugin.")

    def _fail(self, plugin: Plugin, error: BenchError, staged: Staged) -> None:
        plugin.error = error.problem if isinstance(error, PluginError) else str(error)
        message = f"{plugin.label}: {plugin.error}"
        for registry in self._registries:
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


def _own_hooks(plugin: Plugin, module: ModuleType) -> pluggy.HookRelay:
    """Return the hooks of this plugin alone; raise PluginError if one is misspelt or no hook."""
    manager = _new_manager()
    with guard(plugin.label, "reading its hooks"):
        manager.register(module)
        manager.check_pending()
        for name in vars(hookspecs):
            hook = getattr(module, name, None)
            is_own = isfunction(hook) and hook.__module__ == plugin.module
            if is_own and not hasattr(hook, "bench_impl"):
                message = f"its {name}() needs the decorator @hookimpl of bench"
                raise PluginError(plugin.label, message)
    return manager.hook


def _stage_commands(plugin: Plugin, hooks: pluggy.HookRelay, cli: click.Group) -> None:
    with guard(plugin.label, "register_commands()"):
        hooks.register_commands(cli=cli)
        for command in cli.commands.values():
            command.get_short_help_str()  # as `bench --help` does


def _stage(registry: Registry[Any], staged: Staged, plugin: Plugin) -> Callable[..., None]:
    """Return the callback `register` of a hook, which appends a spec to `staged`."""

    def register(name: str, **fields: Any) -> None:
        spec = registry.spec_class(name=name, owner=plugin.label, **fields)
        same_kind = [earlier for other, earlier in staged if other is registry]
        for earlier in same_kind:
            if spec.name == earlier.name:
                raise ValueError(f"{registry.spec_class.kind} {name!r} is registered twice")
            if registry.is_default(spec) and registry.is_default(earlier):
                raise ValueError(f"{earlier.name!r} and {name!r} both have default=True")
        staged.append((registry, spec))

    return register


@cache
def load_plugins() -> Plugins:
    """Load installed plugins once per process, the toolkit's first; their output goes to stderr."""
    plugins = Plugins()
    with stdout_to_stderr():
        for plugin in find_plugins():
            plugins.load(plugin)
    return plugins
