"""Resolve the names in a run's settings to specs, without loading data or weights."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, DatasetSpec
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError
from bench.inputs.data import DataSource
from bench.inputs.draws import DrawPlan
from bench.running.parts.data import data_source, find_dataset
from bench.running.parts.decision import Decider, backbone_params, find_strategy
from bench.running.parts.measure import ResolvedViews, find_plan, resolve_views
from bench.running.parts.scorer import AUTO, BackboneSource, find_backbone, resolve_dtype
from bench.running.parts.setting import option, passed_to
from bench.running.settings import SCORER_TEXT, SETTINGS, RunConfig, changed, loading_settings


@dataclass(frozen=True)
class Resolved:
    """A run's settings and what they resolve to."""

    config: RunConfig  # settings as the user set them
    data: DataSource  # where the images are, and how they are read
    source: BackboneSource  # the backbone, and the weights that the user named
    backbone_parameters: Parameters  # all of the backbone's parameters
    trained_on: str | None
    """Training data as `dataset/split`; None if zero-shot; `unknown` for the user's weights."""
    dtype: str
    template: str | list[str] | None
    """The user's template, else the backbone's; None for the dataset's or a file of prompts."""
    decider: Decider
    plan: DrawPlan  # noise levels and pairs of the draws
    views: ResolvedViews | None = None  # views of an image; None for the image alone
    checks_dtype: bool = False
    """Whether half precision was chosen automatically, so that it is compared with float32."""

    @property
    def dataset(self) -> DatasetSpec:
        """Spec of the dataset."""
        return self.data.spec

    @property
    def backbone(self) -> BackboneSpec:
        """Spec of the backbone."""
        return self.source.spec

    @property
    def backbone_name(self) -> str:
        """Name of the backbone: the spec's, or the folder's or file's, with its LoRAs."""
        return self.source.name

    @property
    def backbone_key(self) -> tuple[object, ...]:
        """What is loaded, and how: runs with equal keys can share a backbone.

        Name, version, parameters, dtype and settings of the loading, and last the weights, as the
        settings name them.
        """
        source, config = self.source, self.config
        return (
            (source.spec.name, source.spec.version, self.dtype),
            tuple(sorted((name, repr(v)) for name, v in self.backbone_parameters.items())),
            loading_settings(config),
            (source.weights, config.revision, source.file, *source.loras),
        )

    @property
    def strategy(self) -> CheckedStrategy:
        """Strategy that decides the images."""
        return self.decider.strategy

    def without_risk(self) -> RunConfig:
        """Return the settings with `risk` replaced by the strategy and parameters it has chosen."""
        if self.config.risk is None:
            return self.config
        decider = self.decider
        params = {**self.config.params, **decider.parameters}
        changes = {"risk": None, "strategy": decider.spec.name, "params": params}
        return self.config.model_copy(update=changes)

    def recorded_settings(self) -> dict[str, object]:
        """Return the settings for the manifest, with resolved names."""
        return {
            **self.config.model_dump(),
            "dataset": self.data.name,
            "data_dir": self.data.data_dir,
            "backbone": self.backbone.name,
            "weights": self.source.file or self.source.weights,
            **({"backbone": self.source.weights} if self.source.file else {}),
            "dtype": self.dtype,
            "template": self.template,
        }


def resolve(config: RunConfig, dataset: DatasetSpec | DataSource | None = None) -> Resolved:
    """Resolve every name in the settings; `dataset` replaces the one that they name.

    Raises UserError if a name is unknown, or settings contradict each other or the backbone.
    """
    if dataset is None:
        dataset = find_dataset(config)
    data = dataset if isinstance(dataset, DataSource) else data_source(config, dataset)
    source = find_backbone(config, data.spec)
    dtype = resolve_dtype(config.dtype, source.spec, config.device)
    decider = find_strategy(config, source.spec)
    options = passed_to(source.spec, config)
    return Resolved(
        config=config,
        data=data,
        source=source,
        backbone_parameters=source.spec.resolve_parameters(
            {**backbone_params(config, source.spec, decider.spec), **options}
        ),
        trained_on=source.trained_on,
        dtype=dtype,
        template=config.template or (None if config.prompts else source.spec.template),
        decider=decider,
        plan=find_plan(config, source.spec),
        views=None if config.views is None else resolve_views(config.views),
        checks_dtype=config.dtype == AUTO and dtype != "float32",
    )


def check_effect(resolved: Resolved) -> None:
    """Raise UserError if the user changed a setting that cannot change anything in this run."""
    backbone = f"Backbone {resolved.backbone_name!r}"
    for name in changed(resolved.config):
        declared, why = SETTINGS[name], ""
        if resolved.backbone.scorer not in declared.scorers:
            why = f"is for {declared.scope}. {backbone} {SCORER_TEXT[resolved.backbone.scorer]}."
        elif declared.ability and not getattr(resolved.strategy, declared.ability):
            why = f"has no effect with strategy {resolved.decider.spec.name!r}."
        elif declared.of_classes and resolved.dataset.items:
            why = (
                f"is about classes, but every item of dataset {resolved.dataset.name!r} has texts"
                " of its own."
            )
        elif declared.learns is True and not resolved.backbone.learns:
            why = f"has no effect: {backbone} is not trainable."
        elif declared.learns is False and resolved.backbone.learns:
            why = f"has no effect: {backbone} learns classes from images and reads no prompts."
        if why:
            raise UserError(f"{option(name)} {why}")


def owners_of(resolved: Resolved) -> list[str | None]:
    """Return the distribution behind each part of a run, or None for an unregistered part."""
    plugins = load_plugins()
    return [
        plugins.datasets.owner(resolved.dataset.name),
        plugins.backbones.owner(resolved.backbone.name),
        plugins.strategies.owner(resolved.decider.spec.name),
        *([plugins.views.owner(resolved.views.spec.name)] if resolved.views else []),
    ]
