"""From names to things: which specs, which strategy, which settings. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, DatasetSpec, StrategySpec
from bench.contracts.training import UNKNOWN
from bench.discovery.declared import load_spec
from bench.discovery.guard import one_line
from bench.discovery.loading import Plugins, load_plugins
from bench.discovery.registry import Registry, SpecT
from bench.discovery.targets import make
from bench.engine.asking import CheckedStrategy
from bench.errors import PluginError, UserError
from bench.inputs.data import FOLDER, DataOptions, check_data_dir, slug
from bench.inputs.declared import is_scheme, unknown_scheme
from bench.inputs.draws import MOST_DRAWS, DrawPlan, draw_plan
from bench.machine.files import is_there, regular_file
from bench.machine.offline import as_settings_say
from bench.running.dtypes import AUTO, resolve_dtype
from bench.running.families import family_of
from bench.running.parts.data import DATA_PARAMETERS
from bench.running.settings import RunConfig
from bench.running.views import ResolvedViews, resolve_views

DECLARATION = ".toml"


@dataclass(frozen=True)
class Resolved:
    """A run's names, resolved and checked.

    Attributes:
        config: the settings; `data_dir` and `weights` filled in where a path was the name.
        data: how the dataset is read.
        backbone_name: how the run calls the backbone: the spec's name, or its folder's.
        trained_on: `dataset/split`, None for zero-shot, `unknown` for weights of the user's own.
        strategy: made from its parameters.
        plan: how draws are paired, and on which levels: the user's, or the backbone's.
        views: of each image; None: itself alone.
        checks_dtype: whether the toolkit chose half precision, and so compares it with float32.
    """

    config: RunConfig
    dataset: DatasetSpec
    data: DataOptions
    backbone: BackboneSpec
    backbone_name: str
    backbone_parameters: Parameters
    trained_on: str | None
    strategy_spec: StrategySpec
    strategy_parameters: Parameters
    strategy: CheckedStrategy
    plan: DrawPlan
    views: ResolvedViews | None = None
    checks_dtype: bool = False


def resolve(config: RunConfig, dataset: DatasetSpec | None = None) -> Resolved:
    """Resolve every name of `config`.

    Args:
        config: the settings.
        dataset: instead of the registered one that `config` names.

    Raises:
        UserError: a name, a parameter or a combination that cannot work.
    """
    plugins = load_plugins()
    if dataset is None:
        config, dataset = resolve_dataset(config, plugins)
    config, backbone = resolve_backbone(config, dataset, plugins)
    if config.template and config.prompts:
        raise UserError(
            "--template and --prompts exclude each other: the file holds whole prompts."
        )
    own_weights, asked = config.weights is not None, config.dtype
    dtype = resolve_dtype(asked, backbone, config.device)
    config = config.model_copy(update={"dtype": dtype})
    if backbone.template and not (config.template or config.prompts):
        config = config.model_copy(update={"template": backbone.template})
    strategy_spec, parameters, strategy = _strategy(config, backbone, plugins)
    return Resolved(
        config=config,
        dataset=dataset,
        data=data_options(config, dataset),
        backbone=backbone,
        backbone_name=slug(str(config.weights)) if backbone.takes_folders else backbone.name,
        backbone_parameters=_backbone_parameters(config, backbone, strategy_spec),
        trained_on=UNKNOWN if own_weights else backbone.trained_on,
        strategy_spec=strategy_spec,
        strategy_parameters=parameters,
        strategy=strategy,
        plan=_plan(config, backbone),
        views=None if config.views is None else resolve_views(config.views, plugins),
        checks_dtype=asked == AUTO and dtype != "float32",
    )


@as_settings_say
def resolve_dataset(config: RunConfig, plugins: Plugins) -> tuple[RunConfig, DatasetSpec]:
    """Find the dataset: a name, a scheme such as `hf:`, a TOML file, or with a slash a folder."""
    if config.dataset.startswith("@"):
        names = plugins.collections.get(config.dataset[1:]).datasets
        raise UserError(
            f"{config.dataset} is a collection of {len(names)} datasets, and a run has one:"
            f" {', '.join(names)}."
        )
    scheme = config.dataset.partition(":")[0]
    if scheme in plugins.datasets and plugins.datasets.get(scheme).scheme:
        spec = plugins.datasets.get(scheme)
        check_data_dir(spec, config.data_dir)
        return config, spec
    if config.dataset.endswith(DECLARATION):
        return config, _declared(config, Path(config.dataset), plugins)
    if is_path(config.dataset) and is_there(config.dataset):
        name = f"dataset{DECLARATION}"
        if regular_file(Path(config.dataset), name) is not None:
            return config, _declared(config, Path(config.dataset, name), plugins, in_data=True)
    if is_scheme(config.dataset) and not config.dataset.startswith("."):
        raise UserError(unknown_scheme(scheme))
    if is_path(config.dataset):
        config = config.model_copy(update={"dataset": FOLDER, "data_dir": config.dataset})
    spec = _get(plugins.datasets, config.dataset)
    if spec.name == FOLDER and not config.data_dir:
        raise UserError("Dataset 'folder' needs --data-dir FOLDER; or name the folder itself.")
    check_data_dir(spec, config.data_dir)
    return config, spec


def expand_datasets(names: Sequence[str], plugins: Plugins) -> list[str]:
    """Return dataset names with `@NAME` replaced by the datasets of that collection, each once.

    Raises:
        UserError: there is no such collection.
    """
    found: dict[str, None] = {}
    for name in names:
        several = plugins.collections.get(name[1:]).datasets if name.startswith("@") else (name,)
        found.update(dict.fromkeys(several))
    return list(found)


def _declared(
    config: RunConfig, file: Path, plugins: Plugins, in_data: bool = False
) -> DatasetSpec:
    """Return the dataset that a TOML file declares, which the user named or the data came with."""
    spec = load_spec(file, in_data)
    if spec.name in plugins.datasets:
        raise UserError(
            f"{file}: the name {spec.name!r} is that of a registered dataset; give it"
            " another, so that their results are not mixed up."
        )
    check_data_dir(spec, config.data_dir)
    return spec


def data_options(config: RunConfig, spec: DatasetSpec) -> DataOptions:
    """Return how the settings say that the dataset is read.

    Raises:
        UserError: the dataset has no such choice.
    """
    given = {
        name: value for name in DATA_PARAMETERS if (value := getattr(config, name)) is not None
    }
    for name in given:
        if name not in spec.parameters:
            option = name.replace("_", "-")
            raise UserError(f"Dataset {spec.name!r} has no choice of --{option}.")
    if spec.scheme:
        given["source"] = config.dataset.partition(":")[2]
    return DataOptions(given, config.class_names, config.skip_unlabelled)


@as_settings_say
def resolve_backbone(
    config: RunConfig, dataset: DatasetSpec | None, plugins: Plugins
) -> tuple[RunConfig, BackboneSpec]:
    """Find the backbone: the one named, the dataset's, or the default one."""
    name = config.backbone or (dataset.backbone if dataset else None)
    if name is None:
        name = _default(plugins.backbones).name
    if is_path(name):
        if config.weights:
            raise UserError("--weights goes with a registered backbone, not with a folder.")
        config = config.model_copy(update={"weights": name})
        name = family_of(name, config.revision, plugins.backbones) or FOLDER
    spec = _get(plugins.backbones, name)
    if spec.takes_folders and not config.weights:
        raise UserError(f"Backbone {name!r} needs --weights FOLDER; or name the folder itself.")
    return config.model_copy(update={"backbone": name}), spec


def is_path(name: str) -> bool:
    """Tell a folder from a registered name: a value with a slash, or `.`, `..`."""
    return "/" in name or "\\" in name or name in (".", "..")


def _get(registry: Registry[SpecT], name: str) -> SpecT:
    try:
        return registry.get(name)
    except UserError as error:
        if is_there(name):
            raise UserError(
                f"{error}\nFor the folder or file of that name, write ./{name}"
            ) from None
        raise


def _plan(config: RunConfig, backbone: BackboneSpec) -> DrawPlan:
    try:
        return draw_plan(config.plan, config.levels, backbone.plan)
    except ValueError as error:  # the user's own were checked with the settings
        raise PluginError(backbone.label, f"its plan: {error}") from None


def _default(registry: Registry[SpecT]) -> SpecT:
    if (spec := registry.default()) is not None:
        return spec
    kind = registry.kind.kind
    raise UserError(f"No {kind} is marked as the default; name one with --{kind}.")


def _backbone_parameters(
    config: RunConfig, spec: BackboneSpec, strategy: StrategySpec
) -> Parameters:
    """Return the backbone's parameters, with the options and the `--set` that set one."""
    given = {
        name: value
        for name in ("normalize", "resolution")
        if (value := getattr(config, name)) is not None
    }
    for name in given:
        if name not in spec.parameters:
            raise UserError(f"Backbone {spec.name!r} has no choice of --{name}.")
    return spec.resolve_parameters({**_of_backbone(config, spec, strategy), **given})


def _of_backbone(config: RunConfig, spec: BackboneSpec, strategy: StrategySpec) -> Parameters:
    """Return the parameters of `--set` that are the backbone's and none of the strategy's."""
    return {
        name: value
        for name, value in config.params.items()
        if name in spec.parameters and name not in strategy.parameters
    }


def _strategy(
    config: RunConfig, backbone: BackboneSpec, plugins: Plugins
) -> tuple[StrategySpec, Parameters, CheckedStrategy]:
    usual: Parameters = {}
    if config.strategy is not None:
        spec = plugins.strategies.get(config.strategy)
    elif backbone.strategy is not None:
        spec = plugins.strategies.get(backbone.strategy)
        usual = dict(backbone.strategy_parameters)
    else:
        spec = _default(plugins.strategies)
    if backbone.draws is not None and "draws" in spec.parameters:
        usual.setdefault("draws", backbone.draws)
    of_backbone = _of_backbone(config, backbone, spec)
    own = {name: value for name, value in config.params.items() if name not in of_backbone}
    return spec, *make_strategy(spec, {**usual, **own})


def make_strategy(
    spec: StrategySpec, given: Mapping[str, Any]
) -> tuple[Parameters, CheckedStrategy]:
    """Return the strategy made from the parameters given, and the parameters to be recorded.

    These are all of them with their values, but for those that came later and are at their default.

    Raises:
        UserError: a parameter is unknown, or its value makes no sense.
    """
    parameters = spec.resolve_parameters(given)
    try:
        made = make(spec, passing=(ValueError,), **parameters)
    except ValueError as error:
        raise UserError(f"Strategy {spec.name!r}: {one_line(error)}.") from None
    strategy = CheckedStrategy(made, spec.label)
    if strategy.draws > MOST_DRAWS:
        raise UserError(
            f"Strategy {spec.name!r}: draws={strategy.draws} is more than {MOST_DRAWS:,}; their"
            " noise and errors are held in memory."
        )
    recorded = {
        name: value
        for name, value in parameters.items()
        if not (spec.parameters[name].later and value == spec.parameters[name].default)
    }
    return {**recorded, **strategy.settled, "draws": strategy.draws}, strategy
