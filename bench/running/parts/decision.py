"""The strategy of a run: how it is found, made, and refused where it cannot decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.contracts.dataset import asks_for_images
from bench.contracts.decision import MEAN
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, StrategySpec
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.discovery.targets import make_from
from bench.engine.asking import CheckedStrategy
from bench.errors import BenchError, UserError
from bench.inputs.draws import MAX_DRAWS
from bench.running.parts.declaration import WITH_DRAWS, Chapter, Text, setting
from bench.store.formats.documents import Manifest
from bench.store.formats.identity import StrategyIdentity


class DecisionSettings(Chapter):
    """How it decides."""

    strategy: Text | None = setting(
        "strategy", identity="resolved", commands="study", most_used=True
    )
    """A registered strategy (default: the backbone's)."""
    params: Parameters = setting(
        "strategy", default={}, identity="resolved", commands="study", most_used=True
    )
    """A parameter of the strategy or the backbone, KEY=VALUE; repeat for more."""
    risk: float | None = setting(
        "strategy",
        scorers=WITH_DRAWS,
        identity="content",
        excludes={"classes": "a risk is calibrated on other images of a dataset; use --dataset"},
        gt=0,
        lt=1,
    )
    """The largest share of decisions that may differ from the full sweep's, such as 0.02. The
    strategy's parameters are chosen by a calibration on other images (`bench learn`) or,
    without one, by sweeping some of the run's own images."""
    risk_else: Literal["full", "schedule"] = setting(
        "strategy", default="full", identity="content", needs="risk", of_split=True
    )
    """Fallback of --risk if no parameters keep it: what decides the images that were not swept,
    full (every prompt on every draw) or schedule (the published schedule, without a promise)."""


@dataclass(frozen=True)
class ConfiguredStrategy:
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
    spec = strategies.require_default()
    return spec, {} if risk else dict(spec.unproven)


def usual_parameters(
    backbone: BackboneSpec | None, strategy: str, params: Mapping[str, Any], risk: bool = False
) -> Parameters:
    """Return parameters of a strategy, with the backbone's own if it is its usual strategy."""
    usual, defaults = usual_strategy(backbone, risk)
    return {**(defaults if usual.name == strategy else {}), **params}


def find_strategy(settings: DecisionSettings, backbone: BackboneSpec) -> ConfiguredStrategy:
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


def make_decider(spec: StrategySpec, params: Mapping[str, Any]) -> ConfiguredStrategy:
    """Make a strategy; raises UserError for unknown or invalid parameters."""
    parameters = spec.resolve_parameters(params)
    strategy = CheckedStrategy(make_from(spec, parameters), spec.label)
    if strategy.draws > MAX_DRAWS:
        raise UserError(
            f"Strategy {spec.name!r}: draws must be at most {MAX_DRAWS:,}, got {strategy.draws},"
            " because their noise and errors are held in memory."
        )
    recorded = {**spec.recorded(parameters), **strategy.settled, "draws": strategy.draws}
    return ConfiguredStrategy(spec, recorded, strategy)


@dataclass(frozen=True)
class StatedRisk:
    """The risk that `--risk` states for a strategy."""

    risk: float  # the largest share of decisions that may differ from those of the full sweep
    decider: ConfiguredStrategy  # the strategy without a risk
    params: Mapping[str, Any]  # parameters that the user set
    results: Path  # results folder with the calibrations

    @property
    def option(self) -> str:
        """The option as the user wrote it."""
        return f"--risk {self.risk:g}"

    @property
    def recorder(self) -> str:
        """The strategy whose recordings the stated one can be replayed on."""
        return self.decider.spec.recorder or exhaustive_strategy()

    def check(self) -> None:
        """Raise UserError if the strategy has no settings to choose from, or the user set one."""
        spec, option = self.decider.spec, self.option
        if not spec.safest_first:
            able = [other.name for other in load_plugins().strategies if other.safest_first]
            raise UserError(
                f"{option}: strategy {spec.name!r} has no settings to choose from; strategies that"
                f" have some: {', '.join(able) or 'none'}."
            )
        chosen = sorted(spec.safest_first[0])
        for name in (name for name in chosen if name in self.params):
            value = self.params[name]
            raise UserError(
                f"{option} chooses {' and '.join(chosen)}: leave --set {name}={value} out."
            )


def check_strategy(
    decider: ConfiguredStrategy,
    scorer: str,  # the backbone or the recorded run, for messages
    *,
    items: tuple[int, int] | None,  # images and texts of an item; None: images share the prompts
    candidates: bool = False,  # whether each image has candidate classes of its own
    reduction: str = MEAN,  # how draws are combined into a score
    gradients: bool = True,  # whether errors can be linearised
) -> None:
    """Raise UserError if a strategy cannot decide under these conditions."""
    strategy = decider.strategy
    linearises, same_draws = strategy.linearises, strategy.same_draws
    own = "items have texts of their own" if items else "candidates differ between images"
    asks_images = items is not None and asks_for_images(*items)
    for refused, reason in (
        (strategy.uses_hierarchy and items, "descends a tree of classes, but items have none"),
        (
            linearises and (items or candidates),
            f"linearises at a mixture of prompts that all images share, but {own}. `race` needs no"
            " gradients",
        ),
        (
            linearises and not gradients,
            f"needs gradients with respect to the text conditioning, which {scorer} does not offer."
            " `race` needs none",
        ),
        (
            not same_draws and asks_images,
            "compares texts of one image only, but the items ask which image fits a text. Use"
            " --strategy full",
        ),
        (
            not same_draws and reduction != MEAN,
            f"compares means over draws, but {scorer} combines draws by {reduction}. Use --strategy"
            " full or uniform",
        ),
    ):
        if refused:
            raise UserError(f"Strategy {decider.spec.name!r} cannot be used here: it {reason}.")


def price(
    strategy: CheckedStrategy, sizes: Sequence[tuple[Problem, int]]
) -> tuple[float, float | None]:
    """Return what an image, or item, costs at most and at least, in evaluation equivalents.

    `sizes` are problems, each with its number of images. The lower bound is None if not known.
    """
    least = [(strategy.at_least(problem), images) for problem, images in sizes]
    return (
        max(strategy.at_most(problem) * images for problem, images in sizes),
        min((cost * images for cost, images in least if cost is not None), default=None),
    )


def strategy_of(manifest: Manifest) -> CheckedStrategy | None:
    """Return the strategy of a stored run, or None if it or its parameters no longer exist."""
    try:
        spec = load_plugins().strategies.get(manifest.strategy.name)
        return make_decider(spec, manifest.strategy.params).strategy
    except BenchError:
        return None
