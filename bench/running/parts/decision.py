"""How it decides: the strategy, its parameters, and the risk that it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, StrategySpec
from bench.discovery.guard import one_line
from bench.discovery.loading import Plugins
from bench.discovery.targets import make
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError
from bench.inputs.draws import MOST_DRAWS
from bench.running.parts.setting import Chapter, Text, default_of, setting


class DecisionSettings(Chapter):
    """The strategy of a run."""

    title = "How it decides"

    strategy: Text | None = setting(
        None,
        "A registered strategy (default: the backbone's).",
        identity="resolved",
        classify=True,
        most_used=True,
    )
    params: Parameters = setting(
        {},
        "A parameter of the strategy or the backbone, KEY=VALUE; repeat for more.",
        identity="resolved",
        classify=True,
        most_used=True,
    )
    risk: float | None = setting(
        None,
        "The largest share of decisions that may differ from those of the full sweep,"
        " such as 0.02: chooses the strategy's parameters by a calibration on other images (`bench"
        " calibrate`).",
        identity="content",
        classify=True,
        gt=0,
        lt=1,
    )


@dataclass(frozen=True)
class Decider:
    """A strategy, its recorded parameters (all but later ones at their default), and its spec."""

    spec: StrategySpec
    parameters: Parameters
    strategy: CheckedStrategy


def find_strategy(settings: DecisionSettings, backbone: BackboneSpec, plugins: Plugins) -> Decider:
    """Find and make the strategy: the user's, the backbone's, or the default one."""
    usual: Parameters = {}
    if settings.strategy is not None:
        spec = plugins.strategies.get(settings.strategy)
    elif backbone.strategy is not None:
        spec = plugins.strategies.get(backbone.strategy)
        usual = dict(backbone.strategy_parameters)
    else:
        spec = default_of(plugins.strategies)
    if backbone.draws is not None and "draws" in spec.parameters:
        usual.setdefault("draws", backbone.draws)
    others = of_backbone(settings, backbone, spec)
    own = {name: value for name, value in settings.params.items() if name not in others}
    return Decider(spec, *make_strategy(spec, {**usual, **own}))


def of_backbone(
    settings: DecisionSettings, spec: BackboneSpec, strategy: StrategySpec
) -> Parameters:
    """Return the parameters of `--set` that only the backbone has."""
    return {
        name: value
        for name, value in settings.params.items()
        if name in spec.parameters and name not in strategy.parameters
    }


def make_strategy(
    spec: StrategySpec, params: Mapping[str, Any]
) -> tuple[Parameters, CheckedStrategy]:
    """Return a strategy's recorded parameters (see `Decider`), and the strategy (UserError)."""
    parameters = spec.resolve_parameters(params)
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
