"""Prompt and strategy settings, and the strategy that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, StrategySpec
from bench.discovery.guard import one_line
from bench.discovery.loading import exhaustive_strategy, load_plugins
from bench.discovery.targets import make
from bench.engine.asking import CheckedStrategy
from bench.errors import UserError
from bench.inputs.draws import MAX_DRAWS
from bench.running.parts.setting import Chapter, Text, default_of, setting
from bench.store.identity import StrategyIdentity

Rule = Literal["best", "mean"]


class QuestionSettings(Chapter):
    """Settings of the prompts."""

    title = "What is asked"

    template: Text | list[Text] | None = setting(
        "prompts",
        identity="resolved",
        commands="prompts",
        most_used=True,
        of_classes=True,
        learns=False,
    )
    """A prompt template with {class}, or a file of them, one per line; repeat for more (default:
    the dataset's)."""
    prompts: Text | None = setting(
        "prompts",
        identity="content",
        commands="prompts",
        of_classes=True,
        learns=False,
        excludes={"template": "the file contains complete prompts"},
    )
    """A CSV file of prompts with the columns prompt,classname,classidx; a class may have
    several."""
    template_rule: Rule = setting("score", default="best", identity="run", of_classes=True)
    """How the prompts of a class are combined into its score: best (the best prompt's score), or
    mean (of their errors)."""
    hierarchy: Text | None = setting(
        "prompts",
        identity="content",
        commands="study",
        ability="uses_hierarchy",
        excludes={
            "prompts": "the file has no prompts for inner nodes; use --template",
            "candidates_from": "a shortlist leaves out classes of the tree",
        },
    )
    """A tree of the classes, for strategies that descend one: CSV with the columns
    node,parent,words, or TOML."""
    candidates_from: Text | None = setting("score", identity="content", of_split=True)
    """A stored run on the same images; only its --top best classes per image are scored."""
    top: int = setting(
        "score", default=5, identity="content", needs="candidates_from", of_split=True, gt=1
    )
    """Number of classes per image that --candidates-from keeps."""


class DecisionSettings(Chapter):
    """Settings of the strategy and its risk."""

    title = "How it decides"

    strategy: Text | None = setting(
        "strategy", identity="resolved", commands="study", most_used=True
    )
    """A registered strategy (default: the backbone's)."""
    params: Parameters = setting(
        "strategy", default={}, identity="resolved", commands="study", most_used=True
    )
    """A parameter of the strategy or the backbone, KEY=VALUE; repeat for more."""
    risk: float | None = setting("strategy", identity="content", gt=0, lt=1)
    """The largest share of decisions that may differ from the full sweep's, such as 0.02. The
    strategy's parameters are chosen by a calibration on other images (`bench learn`) or,
    without one, by sweeping some of the run's own images."""
    risk_else: Literal["full", "schedule"] = setting(
        "strategy", default="full", identity="content", needs="risk", of_split=True
    )
    """Fallback of --risk if no parameters keep it: what decides the images that were not swept,
    full (every prompt on every draw) or schedule (the published schedule, without a promise)."""


@dataclass(frozen=True)
class Decider:
    """A strategy with its spec and its recorded parameters.

    Parameters that were added in later versions are recorded only if they differ from the default,
    so that existing run ids stay valid.
    """

    spec: StrategySpec
    parameters: Parameters
    strategy: CheckedStrategy

    @property
    def identity(self) -> StrategyIdentity:
        """The strategy's part of a run's identity."""
        params = dict(self.parameters)
        return StrategyIdentity(name=self.spec.name, version=self.spec.version, params=params)


def usual_strategy(
    backbone: BackboneSpec | None, risk: bool = False
) -> tuple[StrategySpec, Parameters]:
    """Return a backbone's strategy with its parameters, or the default one if it names none.

    With a `risk`, which chooses them, the default strategy's `unproven` parameters are left out.
    """
    strategies = load_plugins().strategies
    if backbone is not None and backbone.strategy is not None:
        return strategies.get(backbone.strategy), dict(backbone.strategy_parameters)
    if backbone is not None and backbone.draws == 1:  # no evaluation can be saved
        return strategies.get(exhaustive_strategy()), {}
    spec = default_of(strategies)
    return spec, {} if risk else dict(spec.unproven)


def usual_parameters(
    backbone: BackboneSpec | None, strategy: str, params: Mapping[str, Any], risk: bool = False
) -> Parameters:
    """Return parameters of a strategy, with the backbone's own if it is its usual strategy."""
    usual, defaults = usual_strategy(backbone, risk)
    return {**(defaults if usual.name == strategy else {}), **params}


def find_strategy(settings: DecisionSettings, backbone: BackboneSpec) -> Decider:
    """Make the strategy that the user named, else the backbone's, else the default one."""
    if settings.strategy is not None:
        spec, defaults = load_plugins().strategies.get(settings.strategy), Parameters()
    else:
        spec, defaults = usual_strategy(backbone, settings.risk is not None)
    if backbone.draws is not None and "draws" in spec.parameters:
        defaults.setdefault("draws", backbone.draws)
    others = backbone_params(settings, backbone, spec)
    own = {name: value for name, value in settings.params.items() if name not in others}
    return make_decider(spec, {**defaults, **own})


def backbone_params(
    settings: DecisionSettings, spec: BackboneSpec, strategy: StrategySpec
) -> Parameters:
    """Return the parameters of `--set` that the backbone declares and the strategy does not."""
    return {
        name: value
        for name, value in settings.params.items()
        if name in spec.parameters and name not in strategy.parameters
    }


def make_decider(spec: StrategySpec, params: Mapping[str, Any]) -> Decider:
    """Make a strategy; raises UserError for unknown or invalid parameters."""
    parameters = spec.resolve_parameters(params)
    try:
        made = make(spec, passing=(ValueError,), **parameters)
    except ValueError as error:
        raise UserError(f"Strategy {spec.name!r}: {one_line(error)}.") from None
    strategy = CheckedStrategy(made, spec.label)
    if strategy.draws > MAX_DRAWS:
        raise UserError(
            f"Strategy {spec.name!r}: draws must be at most {MAX_DRAWS:,}, got {strategy.draws},"
            " because their noise and errors are held in memory."
        )
    recorded = {**spec.recorded(parameters), **strategy.settled, "draws": strategy.draws}
    return Decider(spec, recorded, strategy)
