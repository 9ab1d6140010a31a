"""The strategy of a run: how it is found, made, and refused where it cannot decide."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.contracts.dataset import asks_for_images
from bench.contracts.decision import MEAN
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec, StrategySpec
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.discovery.targets import make_from
from bench.engine.asking import CheckedStrategy
from bench.errors import BenchError, UserError
from bench.inputs.draws import MAX_DRAWS
from bench.running.settings import RunConfig
from bench.store.documents import Manifest
from bench.store.identity import StrategyIdentity


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
    spec = strategies.require_default()
    return spec, {} if risk else dict(spec.unproven)


def usual_parameters(
    backbone: BackboneSpec | None, strategy: str, params: Mapping[str, Any], risk: bool = False
) -> Parameters:
    """Return parameters of a strategy, with the backbone's own if it is its usual strategy."""
    usual, defaults = usual_strategy(backbone, risk)
    return {**(defaults if usual.name == strategy else {}), **params}


def find_strategy(settings: RunConfig, backbone: BackboneSpec) -> Decider:
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


def backbone_params(settings: RunConfig, spec: BackboneSpec, strategy: StrategySpec) -> Parameters:
    """Return the parameters of `--set` that the backbone declares and the strategy does not."""
    return {
        name: value
        for name, value in settings.params.items()
        if name in spec.parameters and name not in strategy.parameters
    }


def make_decider(spec: StrategySpec, params: Mapping[str, Any]) -> Decider:
    """Make a strategy; raises UserError for unknown or invalid parameters."""
    parameters = spec.resolve_parameters(params)
    strategy = CheckedStrategy(make_from(spec, parameters), spec.label)
    if strategy.draws > MAX_DRAWS:
        raise UserError(
            f"Strategy {spec.name!r}: draws must be at most {MAX_DRAWS:,}, got {strategy.draws},"
            " because their noise and errors are held in memory."
        )
    recorded = {**spec.recorded(parameters), **strategy.settled, "draws": strategy.draws}
    return Decider(spec, recorded, strategy)


def check_strategy(
    decider: Decider,
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


def strategy_of(manifest: Manifest) -> CheckedStrategy | None:
    """Return the strategy of a stored run, or None if it or its parameters no longer exist."""
    try:
        spec = load_plugins().strategies.get(manifest.strategy.name)
        return make_decider(spec, manifest.strategy.params).strategy
    except BenchError:
        return None
