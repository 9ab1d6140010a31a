"""Resolve the names in a run's settings to specs, without loading data or weights."""

from __future__ import annotations

from pathlib import Path

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import DataSource
from bench.running.kinds import KINDS
from bench.running.parts.data import data_source, find_dataset
from bench.running.parts.decision import Decider, backbone_params, find_strategy
from bench.running.parts.measure import find_plan, resolve_views
from bench.running.parts.scorer import AUTO, BackboneSource, find_backbone, resolve_dtype
from bench.running.parts.setting import option, passed_to
from bench.running.question import Resolved
from bench.running.risk import StatedRisk
from bench.running.settings import SCORER_TEXT, SETTINGS, RunConfig, changed


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
        kind=KINDS[source.spec.scorer],
        backbone_parameters=source.spec.resolve_parameters(
            {**backbone_params(config, source.spec, decider.spec), **options}
        ),
        trained_on=source.trained_on,
        dtype=dtype,
        template=config.template or (None if config.prompts else source.spec.template),
        decider=decider,
        risk=None if config.risk is None else _state_risk(config.risk, config, source, decider),
        plan=find_plan(config, source.spec),
        views=None if config.views is None else resolve_views(config.views),
        checks_dtype=config.dtype == AUTO and dtype != "float32",
    )


def _state_risk(
    risk: float, config: RunConfig, source: BackboneSource, decider: Decider
) -> StatedRisk:
    """Return the risk of the settings; UserError if nothing can be risked with the backbone."""
    if source.spec.draws == 1 or KINDS[source.spec.scorer].one_draw:
        raise UserError(
            f"--risk {risk:g}: backbone {source.name!r} has one draw, on which every strategy"
            " decides as the full sweep does. Leave --risk out."
        )
    return StatedRisk(risk, decider, config.params, Path(config.results))


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
