"""What a likelihood asks of a run's seed and strategy."""

from __future__ import annotations

from bench.contracts.reductions import MEAN, REDUCTIONS
from bench.discovery.guard import one_line
from bench.discovery.targets import load_target
from bench.errors import PluginError, UserError
from bench.inputs.draws import MOST_DRAWS
from bench.running.resolve import Resolved


def likelihood_reduction(resolved: Resolved) -> str:
    """Return how a likelihood puts draws together, as its class says.

    Raises:
        PluginError: its class does not say.
    """
    spec = resolved.backbone
    found = getattr(load_target(spec), "reduction", None)
    if found not in REDUCTIONS:
        raise PluginError(
            spec.label,
            f"its class has the reduction {one_line(found)}; one of {', '.join(REDUCTIONS)} is"
            " wanted",
        )
    return str(found)


def check_likelihood(resolved: Resolved) -> None:
    """Refuse seeds and strategies that a likelihood cannot use.

    Raises:
        UserError: the seed is too large, or the strategy compares means where the model puts draws
            together in another way.
    """
    if resolved.backbone.scorer != "likelihood":
        return
    config, name, strategy = resolved.config, resolved.backbone_name, resolved.strategy_spec.name
    if config.seed > (2**63 - 1) // MOST_DRAWS - 1:
        raise UserError(f"--seed {config.seed}: a likelihood takes seeds up to 10^13.")
    reduction = likelihood_reduction(resolved)
    if reduction != MEAN and not resolved.strategy.same_draws:
        raise UserError(
            f"Backbone {name!r} puts draws together by {reduction}. Strategy {strategy!r} gives"
            " prompts up by comparing means, and promises nothing for it. Use --strategy full or"
            " uniform."
        )
