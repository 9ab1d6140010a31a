"""Loading plugins: one at a time, and one that fails harms nobody else.

`BENCH_STRICT_PLUGINS=1` turns a plugin's failure into the command's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any

import click
import pluggy

from bench.contracts import hooks as hookspecs
from bench.contracts.metrics import MetricSpec
from bench.contracts.protocols import CollectionSpec, ProtocolSpec
from bench.contracts.specs import BackboneSpec, DatasetSpec, Spec, StrategySpec, ViewsSpec
from bench.discovery.commands import own_commands
from bench.discovery.finding import GROUP, OWN_DISTRIBUTION, Plugin, find
from bench.discovery.guard import guard, set_aside
from bench.discovery.registry import Registry
from bench.errors import BenchError, PluginError, UserError

Staged = list[tuple[Registry[Any], Spec]]


class Plugins:
    """Everything that is installed: the registries, the commands and the hooks."""

    def __init__(self) -> None:
        self.manager = _new_manager()
        self.datasets = Registry(DatasetSpec, "datasets")
        self.backbones = Registry(BackboneSpec, "backbones")
        self.strategies = Registry(StrategySpec, "strategies")
        self.views = Registry(ViewsSpec, "views")
        self.collections = Registry(CollectionSpec, "collections")
        self.protocols = Registry(ProtocolSpec, "protocols")
        self.metrics = Registry(MetricSpec, "metrics")
        own = (self.datasets, self.backbones, self.strategies, self.views, self.metrics)
        self._registries: list[Registry[Any]] = [*own, self.collections, self.protocols]
        self.commands: dict[str, click.Command] = {}
        self.command_owners: dict[str, str] = {}  # command → the plugin's label
        self.loaded: list[Plugin] = []

    def versions(self) -> dict[str, str]:
        """Return distribution → version of the plugins that loaded."""
        return {p.distribution: p.version for p in self.loaded if p.error is None}

    def load(self, plugin: Plugin) -> None:
        """Load one plugin whole, or leave no trace of it but its error."""
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
        self.commands.update(cli.commands)
        self.command_owners.update(dict.fromkeys(cli.commands, plugin.label))
        plugin.registered = [f"{spec.kind} {spec.name}" for _, spec in staged]
        plugin.registered += [f"command {name}" for name in cli.commands]

    def _stage_all(self, plugin: Plugin, staged: Staged, cli: click.Group) -> None:
        who = plugin.label
        if plugin.error is not None:
            raise PluginError(who, plugin.error)
        with guard(who, f"importing {plugin.module}"):
            module = EntryPoint(plugin.name, plugin.module, GROUP).load()
        if self.manager.is_registered(module):
            other = self.manager.get_name(module)
            raise PluginError(who, f"its module {plugin.module} is that of {other} already")
        # A manager of its own: hooks of this plugin alone, and misspelt hooks are its error.
        manager = _new_manager()
        with guard(who, "reading its hooks"):
            manager.register(module)
            manager.check_pending()
        for registry in self._registries:
            hook = f"register_{registry.listing}"
            with guard(who, f"{hook}()"):
                getattr(manager.hook, hook)(register=_stage(registry, staged, plugin))
        with guard(who, "register_commands()"):
            manager.hook.register_commands(cli=cli)
            for command in cli.commands.values():
                command.get_short_help_str()  # as `bench --help` does
        self._refuse_clashes(plugin, staged, cli)
        with guard(who, "reading its hooks"):
            self.manager.register(module, name=who)

    def _refuse_clashes(self, plugin: Plugin, staged: Staged, cli: click.Group) -> None:
        for registry, spec in staged:
            registry.refuse_clash(spec, plugin.distribution, OWN_DISTRIBUTION)
            default = registry.default()
            if default is not None and registry.is_default(spec):
                raise UserError(
                    f"The {spec.kind} {spec.name!r} says default=True, and so does"
                    f" {default.name!r} of {registry.owner(default.name)}: there is one default."
                )
        for name in cli.commands:
            if name in own_commands():
                raise UserError(f"The command {name!r} is the toolkit's own.")
            if name in self.commands:
                raise UserError(f"The command {name!r} is another plugin's already.")

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


def _stage(registry: Registry[Any], staged: Staged, plugin: Plugin) -> Callable[..., None]:
    def register(name: str, **fields: Any) -> None:
        spec = registry.kind(name=name, owner=plugin.label, **fields)
        for other, earlier in staged:
            if other is registry and spec.name == earlier.name:
                raise ValueError(f"{registry.kind.kind} {name!r} is registered twice")
            if other is registry and registry.is_default(spec) and registry.is_default(earlier):
                raise ValueError(f"both {earlier.name!r} and {name!r} say default=True")
        staged.append((registry, spec))

    return register


@cache
def load_plugins() -> Plugins:
    """Load every installed plugin once per process, the toolkit's own first."""
    plugins = Plugins()
    with set_aside():
        for plugin in find():
            plugins.load(plugin)
    return plugins


def exhaustive() -> str:
    """Return the name of the strategy that evaluates every prompt on every draw (UserError).

    Others are compared with its decisions, and its recordings are replayed.
    """
    for spec in load_plugins().strategies:
        if spec.exhaustive:
            return spec.name
    raise UserError("No installed strategy evaluates every prompt on every draw (exhaustive=True).")


def learning(parameter: str) -> StrategySpec:
    """Return the strategy with a parameter that is learned from recordings (UserError)."""
    for spec in load_plugins().strategies:
        if parameter in spec.learned:
            return spec
    raise UserError(f"No installed strategy learns its parameter {parameter!r} from recordings.")


def metric_specs() -> dict[str, MetricSpec]:
    """Return the registered metrics by name, the toolkit's own first."""
    return load_plugins().metrics.by_name()


def metric_of_runs(name: str) -> MetricSpec:
    """Return a metric that each run has by itself; UserError: none, or it compares with a rater."""
    spec = load_plugins().metrics.get(name)
    if "rater" in spec.needs:
        raise UserError(
            f"There is no rater here, which {spec.words} compares with:"
            f" bench show RUN --metric {name} --with OTHER has one."
        )
    return spec
