"""Load plugins one at a time, so that one that fails to load does not affect the others.

With `BENCH_STRICT_PLUGINS=1`, the command fails if a plugin does.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint
from inspect import isfunction
from typing import Any, Generic, Literal, TypeVar

import click
import pluggy

from bench.contracts import hooks as hookspecs
from bench.contracts.executor import ExecutorSpec
from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
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
from bench.discovery.finding import GROUP, OWN_DISTRIBUTION, Plugin, find_plugins
from bench.discovery.guard import guard, stdout_to_stderr
from bench.errors import BenchError, PluginError, UserError, did_you_mean

SpecT = TypeVar("SpecT", bound=Spec)


class Registry(Generic[SpecT]):
    """The registered specs of one type, such as datasets.

    `spec_class.kind` is their singular name, such as `dataset`; `listing` the plural, as in `bench
    list datasets` and the hook `register_datasets`. `unusable` maps each registered name that
    cannot be used to the reason. `failures` are messages of the plugins that failed.
    """

    def __init__(self, spec_class: type[SpecT], listing: str) -> None:
        self.spec_class = spec_class
        self.listing = listing
        self.unusable: dict[str, str] = {}
        self.failures: list[str] = []
        self._specs: dict[str, SpecT] = {}
        self._owners: dict[str, str] = {}

    def add(self, spec: SpecT, owner: str) -> None:
        """Add `spec`, registered by the distribution `owner`."""
        self._specs[spec.name] = spec
        self._owners[spec.name] = owner

    def owner(self, name: str) -> str | None:
        """Return the distribution that registered `name`; None if the name is not registered."""
        return self._owners.get(name)

    def refuse_clash(self, spec: Spec, distribution: str) -> None:
        """Raise UserError if the name of a distribution's spec is already registered.

        The toolkit keeps its names. If two other distributions use a name, it becomes unusable.
        """
        owner = self.owner(spec.name)
        if owner is None:
            return
        if owner == OWN_DISTRIBUTION:
            raise UserError(f"The {spec.kind} name {spec.name!r} is reserved for the toolkit.")
        self.unusable[spec.name] = (
            f"The {spec.kind} name {spec.name!r} is used by two distributions, {owner!r}"
            f" and {distribution!r}. Uninstall one of them, or leave one out with"
            f" BENCH_BLOCK_PLUGINS={distribution}."
        )
        raise UserError(self.unusable[spec.name])

    def default(self) -> SpecT | None:
        """Return the spec to use if the user names none; None if no spec is the default."""
        return next((spec for spec in self if self.is_default(spec)), None)

    def require_default(self) -> SpecT:
        """Return the spec to use if the user names none; raise UserError if there is none."""
        if (spec := self.default()) is not None:
            return spec
        kind = self.spec_class.kind
        raise UserError(f"No plugin registers a default {kind}; choose one with --{kind}.")

    @staticmethod
    def is_default(spec: Spec) -> bool:
        """Return whether the spec is declared as the default of its kind."""
        return isinstance(spec, BackboneSpec | StrategySpec) and spec.default

    def get(self, name: str) -> SpecT:
        """Return the spec called `name`; raise UserError if it is unknown or unusable."""
        if name in self.unusable:
            raise UserError(self.unusable[name])
        if name not in self._specs:
            kind = self.spec_class.kind
            hints = "".join(f"\nIt may belong to a plugin that failed: {f}" for f in self.failures)
            raise UserError(
                f"Unknown {kind} {name!r}.{did_you_mean(name, self._specs)}"
                f" `bench list {self.listing}` shows all of them.{hints}"
            )
        return self._specs[name]

    def by_name(self) -> dict[str, SpecT]:
        """Return the specs by name, in order of registration."""
        return dict(self._specs)

    def __contains__(self, name: str) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[SpecT]:
        return iter(self._specs[name] for name in sorted(self._specs))


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
        plugin.registered |= {"command": [*cli.commands]} if cli.commands else {}

    def _stage_all(self, plugin: Plugin, staged: Staged, cli: click.Group) -> None:
        who = plugin.label
        if plugin.error is not None:
            raise PluginError(who, plugin.error)
        with guard(who, f"importing {plugin.module}"):
            module = EntryPoint(plugin.name, plugin.module, GROUP).load()
        if self.manager.is_registered(module):
            other = self.manager.get_name(module)
            raise PluginError(who, f"its module {plugin.module} already belongs to {other}")
        # A separate manager calls the hooks of this plugin only, and finds its misspelt hooks.
        manager = _new_manager()
        with guard(who, "reading its hooks"):
            manager.register(module)
            manager.check_pending()
            for name in vars(hookspecs):
                hook = getattr(module, name, None)
                own = isfunction(hook) and hook.__module__ == plugin.module
                if own and not hasattr(hook, "bench_impl"):
                    raise PluginError(who, f"its {name}() needs the decorator @hookimpl of bench")
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


def _stage(registry: Registry[Any], staged: Staged, plugin: Plugin) -> Callable[..., None]:
    """Return the callback `register` of a hook, which appends a spec to `staged`."""

    def register(name: str, **fields: Any) -> None:
        spec = registry.spec_class(name=name, owner=plugin.label, **fields)
        for earlier in (earlier for other, earlier in staged if other is registry):
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


def exhaustive_strategy() -> str:
    """Return the name of the first strategy that declares to evaluate every prompt on every draw.

    Other strategies are compared with its decisions and replayed on its recordings. Raises
    UserError if there is none.
    """
    for spec in load_plugins().strategies:
        if spec.exhaustive:
            return spec.name
    raise UserError("No installed strategy evaluates every prompt on every draw (exhaustive=True).")


def non_default_params(
    kind: Literal["strategies", "backbones"], name: str, params: Parameters
) -> Parameters:
    """Return the parameters that differ from their default; all of them if `name` is unknown."""
    registry: Registry[Any] = getattr(load_plugins(), kind)
    if name not in registry:
        return dict(params)
    spec = registry.get(name)
    return {key: value for key, value in params.items() if not spec.is_default(key, value)}


def metric_specs() -> dict[str, MetricSpec]:
    """Return the registered metrics by name, the toolkit's own first."""
    return load_plugins().metrics.by_name()


def metric_of_runs(name: str) -> MetricSpec:
    """Return the spec of a metric; raise UserError if it is unknown or needs a rater."""
    spec = load_plugins().metrics.get(name)
    if "rater" in spec.needs:
        raise UserError(
            f"There is no rater here for {spec.words} to compare with. Name one with:"
            f" bench show RUN --metric {name} --with OTHER"
        )
    return spec
